/* WebSocket load for the benchmarks: one thread, one epoll loop, every reply checked.
 *
 *   loadgen PORT[,PORT]... SCENARIO [--conns N] [--size BYTES] [--window N] [--seconds S]
 *           [--rate PER_SECOND] [--path /PATH] [--header "NAME: VALUE"]... [--binary]
 *           [--socketio] [--chat MEMBERS] [--lazy]
 *
 * SCENARIO
 *   echo     each connection keeps WINDOW messages of BYTES under way; each must come
 *            back to it, whole and in order
 *   fan      the first connection publishes and keeps WINDOW messages under way; each
 *            connection must receive each of them, whole and in order
 *   connect  N slots connect, shake hands, close and wait for the end, over and over
 *   idle     connect, exchange one message each, then do nothing until told to stop
 *   storm    as idle; then drop all connections and open them again within S seconds
 *   stall    connect, then read nothing any more until told to stop
 *
 * With --rate, `echo` and `fan` send that many messages a second (`echo`: each from the
 * next connection), whatever has come back; a latency then counts from when the message
 * was due. --socketio speaks Socket.IO 5 over Engine.IO 4 instead of plain messages.
 *
 * --chat speaks `wschat.v1.json` as users of their own: rooms of so many connections each.
 * `echo` is then a `say` of each and its reply, while the messages of the others in the
 * room come, too ("news"); `fan` a `say` of the first one and its `message` to each.
 *
 * --lazy, with `fan`: a broadcast counts as over when every 31st connection has it. The
 * others leave theirs in the kernel until the time is up; then all are read and checked.
 * So this program needs next to nothing of the time in which the servers are measured.
 *
 * Prints {"ready": N} when all connections are open and warm, waits for a line on stdin
 * (in `idle` and `stall`, that line is the end), runs for S seconds or until the next
 * line, lets what is under way arrive, and prints one JSON object. "idle" is the share of the time, in percent,
 * in which this program had nothing to do: near 0 it was the bottleneck, not the server.
 * Anything that a correct server does not send ends it with status 1 and the reason.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum scenario { ECHO, FAN, CONNECT, IDLE, STORM, STALL };
enum state { FREE, CONNECTING, HANDSHAKE, JOINING, OPEN, CLOSING, CLOSED };
enum phase { WARMING, READY, RUNNING, DRAINING };

/* Bytes waiting to be parsed, or to be sent. Empty ones hold no memory: with tens of
 * thousands of connections, the buffers would otherwise be the larger part. */
struct bytes {
    uint8_t *data;
    size_t start, length, capacity;
};

struct conn {
    int fd;
    enum state state;
    uint32_t id;
    int warm;              /* has received its warm-up message */
    int writable_wanted;   /* EPOLLOUT is on */
    uint32_t sent, received;
    uint32_t refs;         /* chat: replies that came */
    uint64_t seq;          /* chat: of the last message */
    struct bytes in, out;
};

/* Latencies, in buckets an eighth of an octave wide, from one microsecond up. */
struct histogram {
    uint64_t count[64 * 8], longest;
};

#define CHUNK (256 * 1024)
#define RING 65536         /* fan: more than the largest window */
#define AT_ONCE 64         /* handshakes under way while connecting */
#define SAMPLE 31          /* lazy: of so many connections one reads at once; odd: of each port */
#define LONGEST (256 * 1024) /* chat: a page of the history */
#define WARM 0xffffffffu   /* the id in warm-up messages */
#define STDIN_TAG 0xffffffffu
#define TIMER_TAG 0xfffffffeu
#define SMALL_BUFFER 4096  /* stall: what the kernel may take for a peer that sleeps */

static struct sockaddr_in server; /* its port: that of the next connection */
static uint16_t ports[16];
static uint32_t port_count;
static const char *path = "/echo";
static char headers[2048];
static enum scenario scenario;
static uint32_t conns = 100, window = 1;
static size_t size = 64, before; /* Socket.IO's bytes in front of the message */
static double seconds = 1, rate;
static uint8_t opcode = 1;
static int socketio, lazy, resting;
static uint32_t chat, joined;

static struct conn *all;
static int poller, timer;
static enum phase phase = WARMING;
static uint32_t opened, opening, warmed, warm_seq, under_way, last_source, restarted;
static uint64_t news, acknowledged, sampled;
static uint64_t delivered, published, completed, connects, bytes_in, retries, pings;
static uint32_t ring_count[RING], ring_sample[RING];
static double ring_time[RING], now_s, warm_time, run_time, run_seconds;
static double *sent_at;    /* echo: when each message under way left, by connection */
static struct histogram each, whole; /* one delivery; a broadcast to its last receiver */
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

static void reserve(struct bytes *to, size_t more)
{
    if (to->start && to->start + to->length + more > to->capacity) {
        memmove(to->data, to->data + to->start, to->length);
        to->start = 0;
    }
    if (to->length + more > to->capacity) {
        to->capacity = to->length + more;
        if (to->capacity < 2048)
            to->capacity = 2048; /* one allocation for a turn's small frames */
        if (!(to->data = realloc(to->data, to->capacity)))
            die("out of memory");
    }
}

static void append(struct bytes *to, const void *data, size_t length)
{
    reserve(to, length);
    memcpy(to->data + to->start + to->length, data, length);
    to->length += length;
}

static void discard(struct bytes *from, size_t length)
{
    from->start += length;
    from->length -= length;
    if (!from->length) {
        free(from->data);
        *from = (struct bytes){0};
    }
}

static void record(struct histogram *h, double since)
{
    uint64_t us = (uint64_t)((now_s > since ? now_s - since : 0) * 1e6) + 1;
    int octave = 63 - __builtin_clzll(us);
    int eighth = octave >= 3 ? (us >> (octave - 3)) & 7 : (us << (3 - octave)) & 7;
    h->count[octave * 8 + eighth]++;
    if (us > h->longest)
        h->longest = us;
}

static uint64_t quantile_us(const struct histogram *h, double quantile)
{
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < 64 * 8; i++)
        total += h->count[i];
    for (int i = 0; i < 64 * 8; i++)
        if ((seen += h->count[i]) && seen >= total * quantile)
            return ((uint64_t)(8 + i % 8) << (i / 8)) >> 3;
    return 0;
}

/* Make `to` the message of this sender and number; the rest of it never changes. */
static void write_message(uint8_t *to, uint32_t id, uint32_t number)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t digits[16];
    uint64_t both = (uint64_t)id << 32 | number;
    for (int i = 15; i >= 0; i--, both >>= 4)
        digits[i] = hex[both & 15];
    memcpy(to, digits, size < 16 ? size : 16);
}

static void watch(struct conn *c, int op)
{
    struct epoll_event event = {.data.u32 = c->id};
    int later = resting && c->id % SAMPLE;
    event.events = (later ? 0 : EPOLLIN) | (c->writable_wanted ? EPOLLOUT : 0);
    if (epoll_ctl(poller, op, c->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void flush_out(struct conn *c)
{
    while (c->out.length) {
        ssize_t n = send(c->fd, c->out.data + c->out.start, c->out.length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            if (c->state < CLOSING && scenario != STORM)
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

static void copy_masked(uint8_t *to, const uint8_t *from, size_t length, uint32_t key)
{
    uint64_t wide = (uint64_t)key << 32 | key, word;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= wide;
        memcpy(to + i, &word, 8);
    }
    for (; i < length; i++)
        to[i] = from[i] ^ ((uint8_t *)&key)[i & 3];
}

static void put_frame(struct conn *c, uint8_t frame_opcode, const void *payload,
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
    reserve(&c->out, at + 4 + length);
    append(&c->out, header, at + 4);
    copy_masked(c->out.data + c->out.start + c->out.length, payload, length, key);
    c->out.length += length;
}

/* What one run says must be new to a server that has seen another. */
static void put_say(struct conn *c, uint32_t id, uint32_t number)
{
    uint8_t text[256 + size];
    int n = sprintf((char *)text,
                    "{\"type\":\"say\",\"ref\":%u,\"room\":\"%x-%u\",\"mid\":\"%x-%x-%x\","
                    "\"data\":\"",
                    ++c->refs, getpid(), c->id / chat, getpid(), id, number);
    write_message(scratch, id, number);
    memcpy(text + n, scratch, size);
    memcpy(text + n + size, "\"}", 2);
    put_frame(c, 1, text, n + size + 2);
}

static void put_join(struct conn *c)
{
    char text[128];
    int n = sprintf(text, "{\"type\":\"join\",\"ref\":0,\"room\":\"%x-%u\"}", getpid(),
                    c->id / chat);
    put_frame(c, 1, text, n);
}

static void put_message(struct conn *c, uint32_t id, uint32_t number)
{
    if (chat) {
        put_say(c, id, number);
        return;
    }
    write_message(scratch + before, id, number);
    put_frame(c, opcode, scratch, before + size + (socketio ? 2 : 0));
}

static void start_connection(struct conn *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    int on = 1, small = SMALL_BUFFER;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (scenario == STALL)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    /* One source address has 28,000 ports, and a closed one rests for a minute. */
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7f000101 + last_source++ % 200);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(c->fd, (struct sockaddr *)&source, sizeof source) < 0)
        die("bind: %s", strerror(errno));
    server.sin_port = htons(ports[c->id % port_count]);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 &&
        errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    c->state = CONNECTING;
    c->writable_wanted = 1;
    c->sent = c->received = c->warm = c->refs = 0;
    watch(c, EPOLL_CTL_ADD);
    opening++;
}

static void drop_connection(struct conn *c)
{
    close(c->fd);
    discard(&c->in, c->in.length);
    discard(&c->out, c->out.length);
    c->state = FREE;
    c->fd = -1;
}

/* In a storm a server may turn connections away; they come again. */
static void connection_failed(struct conn *c, const char *what, const char *why)
{
    if (scenario != STORM || phase != RUNNING || c->state > JOINING)
        die("connection %u, %s: %s", c->id, what, why);
    drop_connection(c);
    opening--;
    retries++;
    start_connection(c);
}

static void send_request(struct conn *c)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        connection_failed(c, "connect", strerror(error));
        return;
    }
    char request[4096], user[32] = "";
    if (chat)
        sprintf(user, "?user=%x-%u", getpid(), c->id);
    int n = snprintf(request, sizeof request,
                     "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
                     path, user, ports[c->id % port_count], headers);
    c->state = HANDSHAKE;
    append(&c->out, request, n);
    flush_out(c);
}

static void end_connection(struct conn *c)
{
    drop_connection(c);
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
    } else if (scenario != FAN && scenario != STALL) {
        put_message(c, WARM, 0);
    }
    flush_out(c);
    if (scenario != CONNECT && phase == WARMING && opened + opening < conns)
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
    record(&each, *left);
    delivered++;
    c->received++;
    under_way--;
    if (phase == RUNNING && !rate) {
        *left = now_s;
        put_message(c, c->id, c->sent++);
        under_way++;
    }
}

static void fan_received(struct conn *c)
{
    uint32_t slot = c->received++ % RING;
    record(&each, ring_time[slot]);
    delivered++;
    if (++ring_count[slot] == conns) {
        completed++;
        record(&whole, ring_time[slot]);
    }
    if (c->id % SAMPLE == 0 && ++ring_sample[slot] == (conns + SAMPLE - 1) / SAMPLE)
        sampled++;
}

static void message_received(struct conn *c, const uint8_t *payload, size_t length)
{
    if (length != size)
        die("connection %u: %zu bytes instead of %zu", c->id, length, size);
    bytes_in += length;
    if (!c->warm || phase == WARMING) {
        uint32_t number = scenario == FAN ? warm_seq : 0;
        write_message(expected, WARM, number);
        warm_time = now_s;
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

static int begins(const uint8_t *data, size_t length, const char *with);

static uint64_t number_behind(const struct conn *c, const uint8_t *data, size_t length,
                              const char *name)
{
    const uint8_t *at = memmem(data, length < 200 ? length : 200, name, strlen(name));
    if (!at)
        die("connection %u: no %s in %.200s", c->id, name, data);
    return strtoull((const char *)at + strlen(name), NULL, 10);
}

static void reply_received(struct conn *c, const uint8_t *data, size_t length)
{
    static const char *ok = "\"ok\":true";
    uint64_t ref = number_behind(c, data, length, "\"ref\":");
    if (!memmem(data, length < 60 ? length : 60, ok, strlen(ok)))
        die("connection %u: %.*s", c->id, (int)(length < 200 ? length : 200), data);
    if (c->state == JOINING) {
        c->seq = number_behind(c, data, length, "\"seq\":");
        joined++;
        connection_opened(c);
        return;
    }
    acknowledged++;
    if (scenario != ECHO)
        return;
    if (phase == WARMING) {
        c->warm = 1;
        warmed++;
    } else if (ref != c->received + 2) { /* the first one was for the warm-up */
        die("connection %u: reply %lu, %u expected", c->id, ref, c->received + 2);
    } else {
        echo_received(c);
    }
}

static void said_received(struct conn *c, const uint8_t *data, size_t length)
{
    static const char *name = "\"data\":\"";
    uint64_t seq = number_behind(c, data, length, "\"seq\":");
    if (seq != ++c->seq)
        die("connection %u: message %lu, %lu expected", c->id, seq, c->seq);
    const uint8_t *at = memmem(data, length, name, strlen(name));
    if (!at || at + strlen(name) + size > data + length)
        die("connection %u: no data in %.*s", c->id, (int)length, data);
    if (scenario == FAN)
        message_received(c, at + strlen(name), size);
    else
        news++;
}

static void chat_received(struct conn *c, const uint8_t *data, size_t length)
{
    if (begins(data, length, "{\"type\":\"message\""))
        said_received(c, data, length);
    else if (begins(data, length, "{\"type\":\"reply\""))
        reply_received(c, data, length);
    else if (begins(data, length, "{\"type\":\"hello\""))
        put_join(c);
    else if (!begins(data, length, "{\"type\":\"presence\""))
        die("connection %u: unexpected %.*s", c->id, (int)(length < 80 ? length : 80),
            data);
}

static int begins(const uint8_t *data, size_t length, const char *with)
{
    return length >= strlen(with) && !memcmp(data, with, strlen(with));
}

static void packet_received(struct conn *c, const uint8_t *data, size_t length)
{
    static const char *event = "42[\"message\",\"";
    if (begins(data, length, event)) {
        if (memcmp(data + length - 2, "\"]", 2))
            die("connection %u: unfinished event", c->id);
        message_received(c, data + strlen(event), length - strlen(event) - 2);
    } else if (begins(data, length, "0{")) {
        put_frame(c, 1, "40", 2);
    } else if (begins(data, length, "40") && c->state == JOINING) {
        connection_opened(c);
    } else if (begins(data, length, "2")) {
        put_frame(c, 1, "3", 1);
    } else {
        die("connection %u: unexpected packet %.*s", c->id,
            (int)(length < 40 ? length : 40), data);
    }
}

/* Return the length of the frame that begins at `data`, 0 while that is unknown. */
static size_t frame_length(const uint8_t *data, size_t available, size_t *header)
{
    if (available < 2)
        return 0;
    uint64_t length = data[1] & 127;
    *header = length < 126 ? 2 : length == 126 ? 4 : 10;
    if (available < *header)
        return 0;
    if (*header > 2) {
        length = 0;
        for (size_t i = 2; i < *header; i++)
            length = length << 8 | data[i];
    }
    return *header + length;
}

/* Handle one whole frame at `data`. Return its length, 0 while it is incomplete. */
static size_t take_frame(struct conn *c, const uint8_t *data, size_t available)
{
    size_t header, frame = frame_length(data, available, &header);
    if (!frame)
        return 0;
    size_t length = frame - header;
    if (data[0] == 'H' && c->state == CLOSING) {
        c->state = CLOSED;
        return available;
    }
    if (data[1] & 0x80)
        die("connection %u: masked frame from the server", c->id);
    if (length > (chat ? LONGEST : size + 300))
        die("connection %u: frame of %zu bytes", c->id, length);
    if (available < frame)
        return 0;
    const uint8_t *payload = data + header;
    if (data[0] == (0x80 | opcode)) {
        if (chat)
            chat_received(c, payload, length);
        else if (socketio)
            packet_received(c, payload, length);
        else
            message_received(c, payload, length);
    } else if (data[0] == 0x89) {
        pings++;
        put_frame(c, 10, payload, length);
    } else if (data[0] == 0x88) {
        int code = length > 1 ? payload[0] << 8 | payload[1] : 1005;
        /* Some servers drop the code of a close that they answer. */
        if (c->state != CLOSING || (code != 1000 && code != 1005))
            die("connection %u: closed by the server with code %d", c->id, code);
        c->state = CLOSED;
    } else if (data[0] != 0x8a) {
        die("connection %u: unexpected frame, first byte %02x", c->id, data[0]);
    }
    return frame;
}

static size_t take_all(struct conn *c, const uint8_t *data, size_t length)
{
    size_t taken = 0, n;
    if (c->state == HANDSHAKE) {
        if (!(taken = check_response(c, data, length)))
            return 0;
        if (socketio || chat)
            c->state = JOINING;
        else
            connection_opened(c);
    }
    while (c->state != CLOSED && (n = take_frame(c, data + taken, length - taken)))
        taken += n;
    /* Behind a close frame, or instead, Werkzeug's server sends an HTTP response. */
    return c->state == CLOSED ? length : taken;
}

/* One read per event: with a thousand connections, the next round costs less than a
 * read that finds nothing. The rest of a long frame is read to where its start is. */
static void readable(struct conn *c)
{
    size_t room = CHUNK, header;
    uint8_t *to = chunk;
    if (c->in.length) {
        size_t frame = frame_length(c->in.data + c->in.start, c->in.length, &header);
        int known = c->state >= OPEN && frame > c->in.length;
        room = known ? frame - c->in.length : 4096;
        reserve(&c->in, room);
        to = c->in.data + c->in.start + c->in.length;
    }
    ssize_t n = recv(c->fd, to, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        if (c->state >= CLOSING)
            end_connection(c);
        else
            connection_failed(c, "ended by the server",
                              n ? strerror(errno) : "end of stream");
        return;
    }
    if (to == chunk) {
        size_t taken = take_all(c, chunk, n);
        if (taken < (size_t)n)
            append(&c->in, chunk + taken, n - taken);
    } else {
        c->in.length += n;
        discard(&c->in, take_all(c, c->in.data + c->in.start, c->in.length));
    }
    if (c->out.length)
        flush_out(c);
}

static void publish(double due)
{
    uint32_t slot = published % RING;
    if (published - completed >= RING)
        die("%d broadcasts under way", RING);
    ring_count[slot] = ring_sample[slot] = 0;
    ring_time[slot] = due;
    put_message(&all[0], 0, published++);
}

static void publish_up_to_window(void)
{
    while (phase == RUNNING && published - (lazy ? sampled : completed) < window)
        publish(now_s);
    if (all[0].out.length)
        flush_out(&all[0]);
}

/* Send what has become due by the clock. */
static void send_due(void)
{
    uint64_t ticks;
    if (read(timer, &ticks, sizeof ticks) < 0)
        return;
    static uint64_t sent;
    for (; sent < (uint64_t)((now_s - run_time) * rate) && phase == RUNNING; sent++) {
        double due = run_time + (sent + 1) / rate;
        struct conn *c = &all[scenario == FAN ? 0 : sent % conns];
        if (scenario == FAN) {
            publish(due);
        } else {
            if (c->sent - c->received >= window)
                die("connection %u: %u messages under way", c->id, window);
            sent_at[(size_t)c->id * window + c->sent % window] = due;
            put_message(c, c->id, c->sent++);
            under_way++;
        }
        flush_out(c);
    }
}

/* A connection may see its 101 before it is a member, so the first broadcasts can miss
 * some: repeat, when no more comes of one, until one has reached all. Nothing older can
 * then still be under way. */
static int warm_up_done(void)
{
    if (scenario == CONNECT)
        return connects >= conns && !under_way;
    if (opened < conns)
        return 0;
    if (scenario == STALL)
        return 1;
    if (scenario == FAN && warmed < conns && now_s - warm_time > 0.25) {
        warm_time = now_s;
        warm_seq++;
        warmed = 0;
        put_message(&all[0], WARM, warm_seq);
        flush_out(&all[0]);
    }
    return warmed == conns;
}

static void start_timer(double interval)
{
    struct itimerspec times;
    times.it_interval.tv_sec = (time_t)interval;
    times.it_interval.tv_nsec = (interval - (time_t)interval) * 1e9;
    times.it_value = times.it_interval;
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = TIMER_TAG};
    if (timer < 0 || timerfd_settime(timer, 0, &times, NULL) < 0 ||
        epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event) < 0)
        die("timer: %s", strerror(errno));
}

static void start_running(void)
{
    phase = RUNNING;
    run_time = now_s;
    delivered = connects = bytes_in = news = acknowledged = 0;
    memset(&each, 0, sizeof each);
    memset(&whole, 0, sizeof whole);
    if (rate)
        start_timer(1 / rate);
    if (scenario == STORM) {
        opened = warmed = 0;
        for (uint32_t i = 0; i < conns; i++)
            drop_connection(&all[i]);
    }
    resting = lazy;
    for (uint32_t i = 0; lazy && i < conns; i++)
        watch(&all[i], EPOLL_CTL_MOD);
    for (uint32_t i = 0; i < conns; i++) {
        if (scenario == CONNECT) {
            under_way++;
            start_connection(&all[i]);
        }
        for (uint32_t k = 0; scenario == ECHO && !rate && k < window; k++) {
            sent_at[(size_t)i * window + k] = now_s;
            put_message(&all[i], i, all[i].sent++);
            under_way++;
        }
        if (all[i].out.length)
            flush_out(&all[i]);
    }
}

/* Bring the dropped connections back, evenly over the given seconds. */
static void reconnect_due(void)
{
    double share = (now_s - run_time) / seconds;
    uint32_t due = share < 1 ? share * conns : conns;
    while (restarted < due)
        start_connection(&all[restarted++]);
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
        if (events[i].data.u32 == TIMER_TAG) {
            send_due();
            continue;
        }
        struct conn *c = &all[events[i].data.u32];
        if (c->state == CONNECTING)
            send_request(c);
        else if (events[i].events & EPOLLOUT && c->state != FREE)
            flush_out(c);
        if (c->state >= HANDSHAKE && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            readable(c);
    }
    if (scenario == FAN && phase == RUNNING && !rate)
        publish_up_to_window();
    return told;
}

static void parse_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"conns", 1, 0, 'c'},   {"size", 1, 0, 's'},   {"window", 1, 0, 'w'},
        {"seconds", 1, 0, 't'}, {"rate", 1, 0, 'r'},   {"path", 1, 0, 'p'},
        {"header", 1, 0, 'h'},  {"binary", 0, 0, 'b'}, {"socketio", 0, 0, 'i'},
        {"chat", 1, 0, 'm'},    {"lazy", 0, 0, 'l'},
        {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) > 0) {
        switch (option) {
        case 'c': conns = atoi(optarg); break;
        case 's': size = atoi(optarg); break;
        case 'w': window = atoi(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'p': path = optarg; break;
        case 'b': opcode = 2; break;
        case 'i': socketio = 1; break;
        case 'm': chat = atoi(optarg); break;
        case 'l': lazy = 1; break;
        case 'h':
            if (strlen(headers) + strlen(optarg) + 3 > sizeof headers)
                die("too many headers");
            strcat(strcat(headers, optarg), "\r\n");
            break;
        default: exit(2);
        }
    }
    static const char *names[] = {"echo", "fan", "connect", "idle", "storm", "stall"};
    if (argc - optind != 2)
        die("usage: loadgen PORT SCENARIO [options]; see the top of loadgen.c");
    server.sin_family = AF_INET;
    for (char *port = strtok(argv[optind], ","); port && port_count < 16;
         port = strtok(NULL, ","))
        ports[port_count++] = atoi(port);
    if (!port_count)
        die("no port");
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (scenario = ECHO; strcmp(names[scenario], argv[optind + 1]); scenario++)
        if (scenario == STALL)
            die("no scenario %s", argv[optind + 1]);
    if (!conns || size < 8 || !window || window >= RING || seconds <= 0 || rate < 0)
        die("needs conns > 0, size >= 8, 0 < window < %d, seconds > 0", RING);
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
    scratch = malloc(size + 64);
    sent_at = scenario == ECHO ? calloc((size_t)conns * window, sizeof *sent_at) : NULL;
    if (!all || !expected || !scratch || (scenario == ECHO && !sent_at))
        die("out of memory");
    memset(expected, 'x', size);
    if (socketio)
        before = sprintf((char *)scratch, "42[\"%s\",\"",
                         scenario == FAN ? "fan" : "echo");
    memset(scratch + before, 'x', size);
    memcpy(scratch + before + size, "\"]", 2);
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

static int still_under_way(void)
{
    if (scenario == STORM)
        return warmed < conns;
    if (chat && scenario == FAN && acknowledged < published)
        return 1;
    return scenario == FAN ? completed < published : under_way > 0;
}

static void run(void)
{
    double started = now_s;
    start_running();
    if (scenario == FAN && !rate)
        publish_up_to_window();
    while (now_s - started < seconds) {
        if (wait_events(scenario == STORM ? 1 : 100))
            break;
        if (scenario == STORM)
            reconnect_due();
    }
    if (scenario != STORM)
        phase = DRAINING;
    while (lazy && sampled < published)
        wait_events(100);
    run_seconds = now_s - started;
    resting = 0;
    for (uint32_t i = 0; lazy && i < conns; i++)
        watch(&all[i], EPOLL_CTL_MOD);
    while (still_under_way()) {
        wait_events(100);
        if (scenario == STORM)
            reconnect_due();
        if (now_s - started > seconds + 20)
            die("still under way 20 s after the end");
    }
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* page faults would be half of the work */
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    alarm(150 + (unsigned)seconds); /* whatever happens, it does not stay */
    prepare();
    double started = now_s = clock_s(CLOCK_MONOTONIC);
    while (!warm_up_done()) {
        wait_events(50);
        if (now_s - started > 60)
            die("not ready after 60 s: %u open, %u warm", opened, warmed);
    }
    phase = READY;
    pings = 0;
    printf("{\"ready\": %u, \"seconds\": %.3f}\n", conns, now_s - started);
    fflush(stdout);
    if (scenario == STALL) {
        char line[64];
        return read(0, line, sizeof line) < 0;
    }
    while (!wait_events(-1))
        ;
    if (scenario == IDLE)
        return 0;

    double cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID);
    started = now_s;
    run();
    double elapsed = now_s - started;
    cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("{\"messages\": %llu, \"published\": %llu, \"news\": %llu, \"run_seconds\": %.4f, \"connects\": %llu, "
           "\"bytes\": %llu, \"pings\": %llu, \"retries\": %llu, \"seconds\": %.4f, \"cpu\": %.4f, "
           "\"idle\": %.1f, \"p50_us\": %llu, \"p99_us\": %llu, \"max_us\": %llu, "
           "\"whole_p50_us\": %llu, \"whole_p99_us\": %llu, \"whole_max_us\": %llu}\n",
           (unsigned long long)delivered, (unsigned long long)published,
           (unsigned long long)news, run_seconds, (unsigned long long)connects, (unsigned long long)bytes_in,
           (unsigned long long)pings, (unsigned long long)retries, elapsed, cpu, 100 * (1 - cpu / elapsed),
           (unsigned long long)quantile_us(&each, 0.5),
           (unsigned long long)quantile_us(&each, 0.99),
           (unsigned long long)each.longest,
           (unsigned long long)quantile_us(&whole, 0.5),
           (unsigned long long)quantile_us(&whole, 0.99),
           (unsigned long long)whole.longest);
    return 0;
}
