/* The yardstick: the least work a WebSocket server can do on one epoll loop.
 *
 *   epoll [cork]
 *
 * `/fan` sends each message to every connection there, any other path sends it back.
 * One send per delivery, as soon as there is something to deliver; with `cork` what one
 * turn of the loop has for a connection is gathered and leaves in one send. Prints the
 * port it listens on and ends when stdin does. What it leaves out, on purpose: limits,
 * timeouts, the UTF-8 check, fragments, compression, more of HTTP than one header.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK (256 * 1024)
#define HEAD_MAX 8192
#define FILES_MAX (1 << 20)
#define LISTENER 0xffffffffu
#define STDIN 0xfffffffeu

/* Empty ones hold no memory: an idle connection is this struct and a socket. */
struct bytes {
    uint8_t *data;
    size_t start, length, capacity;
};

struct conn {
    int fd, open, fan, closing, writable_wanted, dirty;
    uint32_t member; /* its place in `members` */
    struct bytes in, out;
};

static struct conn **conns;
static uint32_t *members, *dirty, member_count, dirty_count;
static int poller, cork;
static uint8_t chunk[CHUNK];

static void *checked(void *pointer)
{
    if (!pointer) {
        fprintf(stderr, "epoll: out of memory\n");
        exit(1);
    }
    return pointer;
}

static void reserve(struct bytes *b, size_t more)
{
    if (b->start && b->start + b->length + more > b->capacity) {
        memmove(b->data, b->data + b->start, b->length);
        b->start = 0;
    }
    if (b->length + more > b->capacity) {
        b->capacity = 2 * b->capacity + 2048;
        if (b->length + more > b->capacity)
            b->capacity = b->length + more;
        b->data = checked(realloc(b->data, b->capacity));
    }
}

static void append(struct bytes *b, const void *data, size_t length)
{
    reserve(b, length);
    memcpy(b->data + b->start + b->length, data, length);
    b->length += length;
}

static void take(struct bytes *b, size_t length)
{
    b->start += length;
    b->length -= length;
    if (!b->length) {
        free(b->data);
        *b = (struct bytes){0};
    }
}

static uint32_t rotate(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

static void sha1_block(uint32_t h[5], const uint8_t *p)
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 |
               p[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                     : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                     : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                              : (b ^ c ^ d) + 0xca62c1d6;
        uint32_t next = rotate(a, 5) + f + e + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

/* Write the 28 characters that answer a key of 24 (RFC 6455 §1.3). */
static void accept_key(const uint8_t *key, char *to)
{
    static const char *alphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t text[128] = {0}, digest[21] = {0};
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    memcpy(text, key, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    text[60] = 0x80;
    text[126] = 60 * 8 >> 8;
    text[127] = 60 * 8 & 255;
    sha1_block(h, text);
    sha1_block(h, text + 64);
    for (int i = 0; i < 20; i++)
        digest[i] = h[i / 4] >> (24 - i % 4 * 8);
    for (int i = 0; i < 7; i++) {
        uint32_t three = digest[3 * i] << 16 | digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (int k = 0; k < 4; k++)
            to[4 * i + k] = alphabet[three >> (18 - 6 * k) & 63];
    }
    to[27] = '=';
}

static void watch(struct conn *c, int op)
{
    struct epoll_event event = {.data.u32 = c->fd};
    event.events = EPOLLIN | (c->writable_wanted ? EPOLLOUT : 0);
    epoll_ctl(poller, op, c->fd, &event);
}

static void end(struct conn *c)
{
    if (c->fan) {
        members[c->member] = members[--member_count];
        conns[members[c->member]]->member = c->member;
    }
    close(c->fd);
    conns[c->fd] = NULL;
    free(c->in.data);
    free(c->out.data);
    free(c);
}

static void want_writable(struct conn *c, int wanted)
{
    if (wanted != c->writable_wanted) {
        c->writable_wanted = wanted;
        watch(c, EPOLL_CTL_MOD);
    }
}

/* Send what waits. Errors show up as the end of reading. */
static void flush(struct conn *c)
{
    while (c->out.length) {
        ssize_t n = send(c->fd, c->out.data + c->out.start, c->out.length, MSG_NOSIGNAL);
        if (n < 0)
            break;
        take(&c->out, n);
    }
    want_writable(c, c->out.length > 0);
}

static void deliver(struct conn *c, const uint8_t *frame, size_t length)
{
    if (cork || c->out.length) {
        append(&c->out, frame, length);
        if (cork && !c->dirty) {
            c->dirty = 1;
            dirty[dirty_count++] = c->fd;
        }
        return;
    }
    ssize_t n = send(c->fd, frame, length, MSG_NOSIGNAL);
    if (n < 0)
        n = 0;
    if ((size_t)n < length) {
        append(&c->out, frame + n, length - n);
        want_writable(c, 1);
    }
}

static void unmask(uint8_t *data, size_t length, const uint8_t *key)
{
    uint64_t wide, word;
    size_t i = 0;
    memcpy(&wide, key, 4);
    memcpy((uint8_t *)&wide + 4, key, 4);
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    for (; i < length; i++)
        data[i] ^= key[i & 3];
}

/* Return the whole length of the frame that begins here, 0 if that is not known yet. */
static size_t frame_length(const uint8_t *data, size_t available)
{
    if (available < 2)
        return 0;
    uint64_t length = data[1] & 127;
    size_t header = length < 126 ? 2 : length == 126 ? 4 : 10;
    if (available < header)
        return 0;
    if (header > 2) {
        length = 0;
        for (size_t i = 2; i < header; i++)
            length = length << 8 | data[i];
    }
    return header + 4 + length;
}

/* Handle a whole frame. The reply is made in its place: a server's header is shorter. */
static void take_frame(struct conn *c, uint8_t *data, size_t whole)
{
    size_t header = (data[1] & 127) < 126 ? 2 : (data[1] & 127) == 126 ? 4 : 10;
    uint8_t *frame = data + 4, opcode = data[0] & 15, key[4];
    memcpy(key, data + header, 4);
    unmask(data + header + 4, whole - header - 4, key);
    memmove(frame, data, header);
    frame[1] &= 127;
    if (opcode == 9)
        frame[0] = 0x8a;
    if (opcode == 10)
        return;
    if (opcode < 8 && c->fan) {
        for (uint32_t i = 0; i < member_count; i++)
            deliver(conns[members[i]], frame, whole - 4);
        return;
    }
    deliver(c, frame, whole - 4);
    c->closing = opcode == 8;
}

/* Return how many bytes of an opening request were taken. */
static size_t shake_hands(struct conn *c, const uint8_t *data, size_t length)
{
    static const char *name = "\r\nSec-WebSocket-Key: ";
    char reply[160] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                      "Connection: Upgrade\r\nSec-WebSocket-Accept: ";
    const uint8_t *stop = memmem(data, length, "\r\n\r\n", 4);
    if (!stop) {
        c->closing = length > HEAD_MAX;
        return 0;
    }
    const uint8_t *key = memmem(data, stop - data, name, strlen(name));
    if (!key || stop - key < (ptrdiff_t)strlen(name) + 24) {
        c->closing = 1;
        return 0;
    }
    size_t at = strlen(reply);
    accept_key(key + strlen(name), reply + at);
    memcpy(reply + at + 28, "\r\n\r\n", 4);
    c->open = 1;
    if (!memcmp(data, "GET /fan ", 9)) {
        c->fan = 1;
        c->member = member_count;
        members[member_count++] = c->fd;
    }
    deliver(c, (uint8_t *)reply, at + 32);
    return stop + 4 - data;
}

static size_t take_all(struct conn *c, uint8_t *data, size_t length)
{
    size_t taken = c->open ? 0 : shake_hands(c, data, length), n;
    while (c->open && !c->closing &&
           (n = frame_length(data + taken, length - taken)) && n <= length - taken) {
        take_frame(c, data + taken, n);
        taken += n;
    }
    return taken;
}

/* A frame that is longer than one read goes straight to where it is put together. */
static void readable(struct conn *c)
{
    size_t size = CHUNK, whole;
    uint8_t *to = chunk;
    if (c->in.length) {
        whole = frame_length(c->in.data + c->in.start, c->in.length);
        size = c->open && whole > c->in.length ? whole - c->in.length : 4096;
        reserve(&c->in, size);
        to = c->in.data + c->in.start + c->in.length;
    }
    ssize_t n = recv(c->fd, to, size, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        end(c);
        return;
    }
    if (to == chunk) {
        size_t taken = take_all(c, chunk, n);
        if (taken < (size_t)n)
            append(&c->in, chunk + taken, n - taken);
    } else {
        c->in.length += n;
        take(&c->in, take_all(c, c->in.data + c->in.start, c->in.length));
    }
    if (c->closing && !cork)
        shutdown(c->fd, SHUT_WR);
}

static void accept_all(int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = conns[fd] = checked(calloc(1, sizeof *c));
        c->fd = fd;
        watch(c, EPOLL_CTL_ADD);
    }
}

static int start_listening(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&address, &length)) {
        perror("epoll: listen");
        exit(1);
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void flush_dirty(void)
{
    for (uint32_t i = 0; i < dirty_count; i++) {
        struct conn *c = conns[dirty[i]];
        if (!c)
            continue; /* it ended in the same turn */
        c->dirty = 0;
        flush(c);
        if (c->closing)
            shutdown(c->fd, SHUT_WR);
    }
    dirty_count = 0;
}

int main(int argc, char **argv)
{
    static struct epoll_event events[1024];
    struct rlimit files;
    /* Giving memory back to the system, to take it again, would cost more than a send. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    cork = argc > 1 && !strcmp(argv[1], "cork");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < FILES_MAX ? files.rlim_max : FILES_MAX;
    setrlimit(RLIMIT_NOFILE, &files);
    conns = checked(calloc(files.rlim_cur, sizeof *conns));
    members = checked(calloc(files.rlim_cur, sizeof *members));
    dirty = checked(calloc(files.rlim_cur, sizeof *dirty));
    poller = epoll_create1(0);
    int listener = start_listening();
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = LISTENER};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.u32 = STDIN;
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        int n = epoll_wait(poller, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            uint32_t tag = events[i].data.u32;
            if (tag == STDIN)
                return 0;
            if (tag == LISTENER) {
                accept_all(listener);
                continue;
            }
            if (conns[tag] && events[i].events & EPOLLOUT)
                flush(conns[tag]);
            if (conns[tag] && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                readable(conns[tag]);
        }
        if (cork)
            flush_dirty();
    }
}
