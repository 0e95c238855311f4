/* WebSocket load for the benchmarks: one thread, one epoll loop, every reply checked.
 *
 *   loadgen HOST PORT PATH SCENARIO CONNS SIZE WINDOW SECONDS [text|binary]
 *
 * SCENARIO
 *   echo     each connection keeps WINDOW messages of SIZE bytes under way; each must
 *            come back to it, whole and in order
 *   fan      the first connection publishes and keeps WINDOW messages under way; each
 *            connection must receive each of them, whole and in order
 *   connect  CONNS slots connect, shake hands, close and wait for the end, over and over
 *   idle     connect, exchange one message each, then do nothing until told to stop
 *
 * Prints {"ready": CONNS} when all connections are open and warm, waits for a line on
 * stdin (in `idle`, that line is the end), runs for SECONDS, lets what is under way
 * arrive, and prints one JSON object. "idle" is the share of the time, in percent, in
 * which this program had nothing to do: near 0 it was the bottleneck, not the server.
 * Anything that a correct server does not send ends it with status 1 and the reason.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum scenario { ECHO, FAN, CONNECT, IDLE };
enum state { FREE, CONNECTING, HANDSHAKE, OPEN, CLOSING };
enum phase { WARMING, READY, RUNNING, DRAINING };

/* Bytes waiting to be parsed, or to be sent. Empty ones hold no memory: with tens of
 * thousands of connections, the buffers would otherwise be the larger part. */
struct bytes {
    uint8_t *data;
    size_t length, capacity;
};

struct conn {
    int fd;
    enum state state;
    uint32_t id;
    int warm;              /* has received its warm-up message */
    int writable_wanted;   /* EPOLLOUT is on */
    uint32_t sent, received;
    struct bytes in, out;
};

#define CHUNK (256 * 1024)
#define RING 65536         /* fan: more than the largest window */
#define AT_ONCE 64         /* handshakes under way while connecting */
#define WARM 0xffffffffu   /* the id in warm-up messages */
#define STDIN_TAG 0xffffffffu

static struct sockaddr_in server;
static const char *host, *path;
static enum scenario scenario;
static uint32_t conns, window;
static size_t size;
static double seconds;
static uint8_t opcode = 1;

static struct conn *all;
static int poller;
static enum phase phase = WARMING;
static uint32_t opened, opening, warmed, warm_seq, under_way, last_source;
static uint64_t delivered, published, completed, connects, bytes_in;
static uint32_t ring_count[RING];
static double ring_time[RING], now_s, warm_time;
static double *sent_at;    /* echo: when each message under way left, by connection */
static uint64_t histogram[64 * 8];
static uint8_t chunk[CHUNK], *expected, *scratch;
static uint32_t random_state = 2463534242u;

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "loadgen: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

static double clock_s(clockid_t id)
{
    struct timespec time;
    clock_gettime(id, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static uint32_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}

static void append(struct bytes *to, const void *data, size_t length)
{
    if (to->length + length > to->capacity) {
        to->capacity = (to->length + length) * 2;
        if (!(to->data = realloc(to->data, to->capacity)))
            die("out of memory");
    }
    memcpy(to->data + to->length, data, length);
    to->length += length;
}

static void discard(struct bytes *from, size_t length)
{
    from->length -= length;
    if (from->length) {
        memmove(from->data, from->data + length, from->length);
    } else {
        free(from->data);
        from->data = NULL;
        from->capacity = 0;
    }
}

/* Latencies go into buckets an eighth of an octave wide, from one microsecond up. */
static void record_latency(double since)
{
    uint64_t us = (uint64_t)((now_s - since) * 1e6) + 1;
    int octave = 63 - __builtin_clzll(us);
    int eighth = octave >= 3 ? (us >> (octave - 3)) & 7 : (us << (3 - octave)) & 7;
    histogram[octave * 8 + eighth]++;
}

static uint64_t latency_us(double quantile)
{
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < 64 * 8; i++)
        total += histogram[i];
    for (int i = 0; i < 64 * 8; i++)
        if ((seen += histogram[i]) && seen >= total * quantile)
            return ((uint64_t)(8 + i % 8) << (i / 8)) >> 3;
    return 0;
}

/* Make `to` the message of this sender and number; the rest of it never changes. */
static void write_message(uint8_t *to, uint32_t id, uint32_t number)
{
    char digits[17];
    snprintf(digits, sizeof digits, "%08x%08x", id, number);
    memcpy(to, digits, size < 16 ? size : 16);
}

static void watch(struct conn *c, int op)
{
    struct epoll_event event = {.data.u32 = c->id};
    event.events = EPOLLIN | (c->writable_wanted ? EPOLLOUT : 0);
    if (epoll_ctl(poller, op, c->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void flush_out(struct conn *c)
{
    while (c->out.length) {
        ssize_t n = send(c->fd, c->out.data, c->out.length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            if (c->state != CLOSING)
                die("connection %u, send: %s", c->id, strerror(errno));
            discard(&c->out, c->out.length);
            break;
        }
        if (n < 0)
            break;
        discard(&c->out, n);
    }
    int wanted = c->out.length > 0;
    if (wanted != c->writable_wanted) {
        c->writable_wanted = wanted;
        watch(c, EPOLL_CTL_MOD);
    }
}

static void put_frame(struct conn *c, uint8_t frame_opcode, const uint8_t *payload,
                      size_t length)
{
    uint8_t header[14] = {0x80 | frame_opcode};
    size_t at = 2;
    if (length < 126) {
        header[1] = 0x80 | length;
    } else if (length < 65536) {
        header[1] = 0x80 | 126;
        header[at++] = length >> 8;
        header[at++] = length;
    } else {
        header[1] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            header[at++] = (uint64_t)length >> shift;
    }
    uint32_t key = next_random();
    memcpy(header + at, &key, 4);
    append(&c->out, header, at + 4);
    size_t start = c->out.length;
    append(&c->out, payload, length);
    for (size_t i = 0; i < length; i++)
        c->out.data[start + i] ^= header[at + (i & 3)];
}

static void put_message(struct conn *c, uint32_t id, uint32_t number)
{
    write_message(scratch, id, number);
    put_frame(c, opcode, scratch, size);
}

static void start_connection(struct conn *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if ((ntohl(server.sin_addr.s_addr) >> 24) == 127) {
        /* One source address has 28,000 ports, and a closed one rests for a minute. */
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(0x7f000101 + last_source++ % 200);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(c->fd, (struct sockaddr *)&source, sizeof source) < 0)
            die("bind: %s", strerror(errno));
    }
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 &&
        errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    c->state = CONNECTING;
    c->writable_wanted = 1;
    c->sent = c->received = 0;
    watch(c, EPOLL_CTL_ADD);
    opening++;
}

static void send_request(struct conn *c)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error)
        die("connect: %s", strerror(error));
    char request[2048];
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                     path, host, ntohs(server.sin_port));
    c->state = HANDSHAKE;
    append(&c->out, request, n);
    flush_out(c);
}

static void end_connection(struct conn *c)
{
    close(c->fd);
    discard(&c->in, c->in.length);
    discard(&c->out, c->out.length);
    c->state = FREE;
    under_way--;
    connects++;
    if (phase == RUNNING || (phase == WARMING && connects < conns)) {
        under_way++;
        start_connection(c);
    }
}

static void connection_opened(struct conn *c)
{
    c->state = OPEN;
    opening--;
    opened++;
    if (scenario == CONNECT) {
        static const uint8_t normal[2] = {1000 >> 8, 1000 & 255};
        c->state = CLOSING;
        put_frame(c, 8, normal, 2);
    } else if (scenario != FAN) {
        put_message(c, WARM, 0);
    }
    flush_out(c);
    if (scenario != CONNECT && opened + opening < conns)
        start_connection(&all[opened + opening]);
}

/* Return the length of the response head, 0 while it is incomplete. */
static size_t check_response(struct conn *c, const uint8_t *data, size_t length)
{
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (memcmp(data, "HTTP/1.1 101", 12))
        die("connection %u refused: %.*s", c->id, (int)(length < 300 ? length : 300),
            data);
    if (!memmem(data, length, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28))
        die("connection %u: wrong Sec-WebSocket-Accept", c->id);
    return end + 4 - (const char *)data;
}

static void echo_received(struct conn *c)
{
    double *left = &sent_at[(size_t)c->id * window + c->received % window];
    record_latency(*left);
    delivered++;
    c->received++;
    under_way--;
    if (phase == RUNNING) {
        *left = now_s;
        put_message(c, c->id, c->sent++);
        under_way++;
    }
}

static void fan_received(struct conn *c)
{
    uint32_t slot = c->received++ % RING;
    record_latency(ring_time[slot]);
    delivered++;
    if (++ring_count[slot] == conns)
        completed++;
}

static void message_received(struct conn *c, const uint8_t *payload, size_t length)
{
    if (length != size)
        die("connection %u: %zu bytes instead of %zu", c->id, length, size);
    bytes_in += length;
    if (phase == WARMING) {
        uint32_t number = scenario == FAN ? warm_seq : 0;
        write_message(expected, WARM, number);
        if (!memcmp(payload, expected, size)) {
            c->warm = 1;
            warmed++;
        } else if (scenario != FAN) {
            die("connection %u: not what was sent", c->id);
        }
        return;
    }
    write_message(expected, scenario == FAN ? 0 : c->id, c->received);
    if (memcmp(payload, expected, size))
        die("connection %u: message %u expected, got %.16s", c->id, c->received,
            payload);
    if (scenario == FAN)
        fan_received(c);
    else
        echo_received(c);
}

/* Handle one whole frame at `data`. Return its length, 0 while it is incomplete. */
static size_t take_frame(struct conn *c, const uint8_t *data, size_t available)
{
    if (available < 2)
        return 0;
    if (data[1] & 0x80)
        die("connection %u: masked frame from the server", c->id);
    uint64_t length = data[1] & 127;
    size_t header = length < 126 ? 2 : length == 126 ? 4 : 10;
    if (available < header)
        return 0;
    if (header > 2) {
        length = 0;
        for (size_t i = 2; i < header; i++)
            length = length << 8 | data[i];
    }
    if (length > size + 125)
        die("connection %u: frame of %llu bytes", c->id, (unsigned long long)length);
    if (available < header + length)
        return 0;
    const uint8_t *payload = data + header;
    if (data[0] == (0x80 | opcode)) {
        message_received(c, payload, length);
    } else if (data[0] == 0x89) {
        put_frame(c, 10, payload, length);
    } else if (data[0] == 0x88) {
        int code = length > 1 ? payload[0] << 8 | payload[1] : 1005;
        /* Some servers drop the code of a close that they answer. */
        if (c->state != CLOSING || (code != 1000 && code != 1005))
            die("connection %u: closed by the server with code %d", c->id, code);
    } else if (data[0] != 0x8a) {
        die("connection %u: unexpected frame, first byte %02x", c->id, data[0]);
    }
    return header + length;
}

static size_t take_all(struct conn *c, const uint8_t *data, size_t length)
{
    size_t taken = 0, n;
    if (c->state == HANDSHAKE) {
        if (!(taken = check_response(c, data, length)))
            return 0;
        connection_opened(c);
    }
    while ((n = take_frame(c, data + taken, length - taken)))
        taken += n;
    return taken;
}

static void readable(struct conn *c)
{
    /* One read per event: with a thousand connections, the next round costs less
     * than a read that finds nothing. */
    ssize_t n = recv(c->fd, chunk, CHUNK, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        if (c->state != CLOSING)
            die("connection %u: ended by the server (%s)", c->id,
                n ? strerror(errno) : "end of stream");
        end_connection(c);
        return;
    }
    if (c->in.length) {
        append(&c->in, chunk, n);
        discard(&c->in, take_all(c, c->in.data, c->in.length));
    } else {
        size_t taken = take_all(c, chunk, n);
        if (taken < (size_t)n)
            append(&c->in, chunk + taken, n - taken);
    }
    if (c->out.length)
        flush_out(c);
}

static void publish_up_to_window(void)
{
    while (phase == RUNNING && published - completed < window) {
        uint32_t slot = published % RING;
        ring_count[slot] = 0;
        ring_time[slot] = now_s;
        put_message(&all[0], 0, published++);
    }
    if (all[0].out.length)
        flush_out(&all[0]);
}

/* A connection may see its 101 before it is a member, so the first broadcasts can miss
 * some: repeat until one has reached all. Nothing older can then still be under way. */
static int warm_up_done(void)
{
    if (scenario == CONNECT)
        return connects >= conns && !under_way;
    if (opened < conns)
        return 0;
    if (scenario == FAN && warmed < conns && now_s - warm_time > 0.25) {
        warm_time = now_s;
        warm_seq++;
        warmed = 0;
        put_message(&all[0], WARM, warm_seq);
        flush_out(&all[0]);
    }
    return warmed == conns;
}

static void start_running(void)
{
    phase = RUNNING;
    delivered = connects = bytes_in = 0;
    memset(histogram, 0, sizeof histogram);
    for (uint32_t i = 0; i < conns; i++) {
        if (scenario == CONNECT) {
            under_way++;
            start_connection(&all[i]);
        }
        for (uint32_t k = 0; scenario == ECHO && k < window; k++) {
            sent_at[(size_t)i * window + k] = now_s;
            put_message(&all[i], i, all[i].sent++);
            under_way++;
        }
        if (all[i].out.length)
            flush_out(&all[i]);
    }
}

static int wait_events(int timeout_ms)
{
    static struct epoll_event events[512];
    int n = epoll_wait(poller, events, 512, timeout_ms), told = 0;
    now_s = clock_s(CLOCK_MONOTONIC);
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == STDIN_TAG) {
            char line[64];
            if (read(0, line, sizeof line) <= 0 && scenario != IDLE)
                exit(1); /* the benchmark is gone */
            told = 1;
            continue;
        }
        struct conn *c = &all[events[i].data.u32];
        if (c->state == CONNECTING)
            send_request(c);
        else if (events[i].events & EPOLLOUT)
            flush_out(c);
        if (c->state >= HANDSHAKE && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            readable(c);
    }
    if (scenario == FAN && phase == RUNNING)
        publish_up_to_window();
    return told;
}

static void parse_arguments(int argc, char **argv)
{
    static const char *names[] = {"echo", "fan", "connect", "idle"};
    if (argc < 9)
        die("usage: HOST PORT PATH echo|fan|connect|idle CONNS SIZE WINDOW SECONDS "
            "[text|binary]");
    host = argv[1];
    path = argv[3];
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[2]));
    if (inet_pton(AF_INET, host, &server.sin_addr) != 1)
        die("not an IPv4 address: %s", host);
    for (scenario = ECHO; strcmp(names[scenario], argv[4]); scenario++)
        if (scenario == IDLE)
            die("no scenario %s", argv[4]);
    conns = atoi(argv[5]);
    size = atoi(argv[6]);
    window = atoi(argv[7]);
    seconds = atof(argv[8]);
    if (argc > 9 && !strcmp(argv[9], "binary"))
        opcode = 2;
    if (!conns || size < 8 || !window || window >= RING || seconds <= 0)
        die("needs CONNS > 0, SIZE >= 8, 0 < WINDOW < %d, SECONDS > 0", RING);
}

static void prepare(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < conns + 20)
        die("%u connections, but only %lu open files allowed", conns,
            (unsigned long)files.rlim_cur);
    all = calloc(conns, sizeof *all);
    expected = malloc(size);
    scratch = malloc(size);
    sent_at = scenario == ECHO ? calloc((size_t)conns * window, sizeof *sent_at) : NULL;
    if (!all || !expected || !scratch || (scenario == ECHO && !sent_at))
        die("out of memory");
    memset(expected, 'x', size);
    memset(scratch, 'x', size);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = STDIN_TAG};
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
    for (uint32_t i = 0; i < conns; i++)
        all[i].id = i;
    for (uint32_t i = 0; i < conns && i < AT_ONCE; i++) {
        if (scenario == CONNECT)
            under_way++;
        start_connection(&all[i]);
    }
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
    alarm(120 + (unsigned)seconds); /* whatever happens, it does not stay */
    prepare();
    double started = now_s = clock_s(CLOCK_MONOTONIC);
    while (!warm_up_done()) {
        wait_events(50);
        if (now_s - started > 60)
            die("not ready after 60 s: %u open, %u warm", opened, warmed);
    }
    phase = READY;
    printf("{\"ready\": %u, \"seconds\": %.3f}\n", conns, now_s - started);
    fflush(stdout);
    while (!wait_events(-1))
        ;
    if (scenario == IDLE)
        return 0;

    double cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID);
    started = now_s;
    start_running();
    if (scenario == FAN)
        publish_up_to_window();
    while (now_s - started < seconds)
        wait_events(100);
    phase = DRAINING;
    while (scenario == FAN ? completed < published : under_way > 0) {
        wait_events(100);
        if (now_s - started > seconds + 20)
            die("still under way 20 s after the end");
    }
    double elapsed = now_s - started;
    cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("{\"messages\": %llu, \"published\": %llu, \"connects\": %llu, "
           "\"bytes\": %llu, \"seconds\": %.4f, \"cpu\": %.4f, \"idle\": %.1f, "
           "\"p50_us\": %llu, \"p99_us\": %llu}\n",
           (unsigned long long)delivered, (unsigned long long)published,
           (unsigned long long)connects, (unsigned long long)bytes_in, elapsed, cpu,
           100 * (1 - cpu / elapsed), (unsigned long long)latency_us(0.5),
           (unsigned long long)latency_us(0.99));
    return 0;
}
