/* An OpenAI server that costs next to nothing: streams words at a fixed pace, each stamped just before it is written.
 *
 * usage: mock_server TOKENS_PER_S FIRST_TOKEN_MS      prints its port; ends when its standard input closes
 *
 * POST /v1/chat/completions, /v1/completions   max_tokens words, then usage where asked for, and [DONE]
 * GET  /v1/models, /health                     for clients that look first
 * GET  /counts                                 requests read, ended, chunks sent, requests held
 * GET  /log                                    int64 per request: number, when read, count, when each word was sent
 * GET  /reset                                  begin a new log
 *
 * Where the request has `"stamps": true`, each chunk's JSON has `sent_ns` and `read_ns` (of its request) by the wall
 * clock; else the events of a stream differ in their words only, as those of real servers do. Not covered: request bodies in
 * chunks, pipelining, TLS.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int64_t number, read_ns, count, room;
    int64_t *sent_ns;
} Log;

typedef struct {
    char *data;
    size_t used, room;
} Bytes;

typedef struct {
    int fd, heap_at, chat, usage, stamps, tokens, sent, waits_to_write;
    int64_t due_ns, read_ns, number, log; /* log: its index, -1 for none */
    Bytes in, out;
} Conn;

static int64_t gap_ns, first_ns, requests, ended, chunks, held;
static Conn **heap;
static int heap_used, heap_room, poller, timer;
static Conn *conns[1 << 20];
static Log *logs;
static int64_t logs_used, logs_room;

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void *grown(void *old, size_t size) {
    void *new = realloc(old, size);
    if (!new) abort();
    return new;
}

static void append(Bytes *bytes, const char *data, size_t size) {
    if (bytes->used + size + 1 > bytes->room) bytes->data = grown(bytes->data, bytes->room = 2 * (bytes->used + size) + 512);
    memcpy(bytes->data + bytes->used, data, size);
    bytes->used += size;
    bytes->data[bytes->used] = 0;
}

/* ---- streams in order of what is due next ---- */

static void place(Conn *conn, int at) {
    heap[at] = conn;
    conn->heap_at = at;
}

static void sift(int at) {
    Conn *conn = heap[at];
    for (; at > 0 && heap[(at - 1) / 2]->due_ns > conn->due_ns; at = (at - 1) / 2) place(heap[(at - 1) / 2], at);
    for (int child; (child = 2 * at + 1) < heap_used; at = child) {
        if (child + 1 < heap_used && heap[child + 1]->due_ns < heap[child]->due_ns) child++;
        if (heap[child]->due_ns >= conn->due_ns) break;
        place(heap[child], at);
    }
    place(conn, at);
}

static void push(Conn *conn) {
    if (heap_used == heap_room) heap = grown(heap, (heap_room = 2 * heap_room + 64) * sizeof *heap);
    heap[heap_used++] = conn;
    sift(heap_used - 1);
}

static void take_out(Conn *conn) {
    int at = conn->heap_at;
    Conn *last = heap[--heap_used];
    conn->heap_at = -1;
    if (last != conn) {
        place(last, at);
        sift(at);
    }
}

/* ---- connections ---- */

static void watch(Conn *conn, int writing) {
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.fd = conn->fd};
    epoll_ctl(poller, EPOLL_CTL_MOD, conn->fd, &event);
    conn->waits_to_write = writing;
}

static void drop(Conn *conn) {
    if (conn->heap_at >= 0) {
        take_out(conn);
        held--;
    }
    conns[conn->fd] = NULL;
    close(conn->fd);
    free(conn->in.data);
    free(conn->out.data);
    free(conn);
}

static int flush(Conn *conn) { /* 0 when the connection is gone */
    while (conn->out.used) {
        ssize_t size = send(conn->fd, conn->out.data, conn->out.used, MSG_NOSIGNAL);
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (size < 0) {
            drop(conn);
            return 0;
        }
        conn->out.used -= size;
        memmove(conn->out.data, conn->out.data + size, conn->out.used);
    }
    if (conn->waits_to_write != (conn->out.used > 0)) watch(conn, conn->out.used > 0);
    return 1;
}

static void answer(Conn *conn, const char *kind, const char *body, size_t size) {
    char head[200];
    int length = sprintf(head, "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n", kind, size);
    append(&conn->out, head, length);
    append(&conn->out, body, size);
    flush(conn);
}

/* ---- streams ---- */

static void event(Conn *conn, const char *json, int size) {
    char head[32];
    append(&conn->out, head, sprintf(head, "%x\r\ndata: ", size + 8));
    append(&conn->out, json, size);
    append(&conn->out, "\n\n\r\n", 4);
}

static void word(Conn *conn, const char *text, const char *finish) {
    char json[400], stamps[80] = "";
    int64_t now_ns = clock_ns(CLOCK_REALTIME);
    const char *shape = conn->chat ? "{\"id\":\"r%ld\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"mock\",%s"
                                     "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},"
                                     "\"logprobs\":null,\"finish_reason\":%s}]}"
                                   : "{\"id\":\"r%ld\",\"object\":\"text_completion\",\"created\":1,\"model\":\"mock\",%s"
                                     "\"choices\":[{\"index\":0,\"text\":\"%s\","
                                     "\"logprobs\":null,\"finish_reason\":%s}]}";
    if (conn->stamps) sprintf(stamps, "\"sent_ns\":%ld,\"read_ns\":%ld,", (long)now_ns, (long)conn->read_ns);
    event(conn, json, sprintf(json, shape, (long)conn->number, stamps, text, finish));
    if (conn->log >= 0 && logs[conn->log].count < logs[conn->log].room) logs[conn->log].sent_ns[logs[conn->log].count++] = now_ns;
}

static void next_word(Conn *conn) {
    static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    char json[200];
    int last = conn->sent + 1 >= conn->tokens;
    if (!conn->sent) append(&conn->out, head, sizeof head - 1);
    sprintf(json, conn->sent ? " word" : " r%ld ", (long)conn->number);
    word(conn, json, last ? "\"length\"" : "null");
    conn->sent++;
    chunks++;
    if (last) {
        if (conn->usage)
            event(conn, json, sprintf(json, "{\"id\":\"r%ld\",\"object\":\"%s\",\"created\":1,\"model\":\"mock\",\"choices\":[],"
                                            "\"usage\":{\"prompt_tokens\":32,\"completion_tokens\":%d,\"total_tokens\":%d}}",
                                      (long)conn->number, conn->chat ? "chat.completion.chunk" : "text_completion", conn->tokens, conn->tokens + 32));
        event(conn, "[DONE]", 6);
        append(&conn->out, "0\r\n\r\n", 5);
        take_out(conn);
        held--;
        ended++;
    } else {
        conn->due_ns += gap_ns;
        sift(conn->heap_at);
    }
    flush(conn);
}

static int number_after(const char *body, const char *key) {
    const char *found = strstr(body, key);
    if (!found) return -1;
    found += strlen(key);
    return atoi(found + strspn(found, " :"));
}

static void whole(Conn *conn, int tokens) {
    char json[400];
    int size = sprintf(json, "{\"id\":\"r\",\"object\":\"%s\",\"created\":1,\"model\":\"mock\",\"choices\":[{\"index\":0,%s,\"finish_reason\":\"length\"}],"
                             "\"usage\":{\"prompt_tokens\":32,\"completion_tokens\":%d,\"total_tokens\":%d}}",
                       conn->chat ? "chat.completion" : "text_completion",
                       conn->chat ? "\"message\":{\"role\":\"assistant\",\"content\":\" word\"}" : "\"text\":\" word\"", tokens, tokens + 32);
    answer(conn, "application/json", json, size);
}

static void begin(Conn *conn, const char *body) {
    int tokens = number_after(body, "\"max_completion_tokens\"");
    if (tokens < 0) tokens = number_after(body, "\"max_tokens\"");
    if (tokens < 1) tokens = 16;
    if (!strstr(body, "\"stream\":true") && !strstr(body, "\"stream\": true")) {
        whole(conn, tokens);
        return;
    }
    conn->tokens = tokens;
    conn->sent = 0;
    conn->usage = strstr(body, "\"include_usage\"") != NULL;
    conn->stamps = strstr(body, "\"stamps\"") != NULL;
    conn->read_ns = clock_ns(CLOCK_REALTIME);
    conn->number = requests++;
    if (logs_used == logs_room) logs = grown(logs, (logs_room = 2 * logs_room + 1024) * sizeof *logs);
    conn->log = logs_used;
    logs[logs_used++] = (Log){.number = conn->number, .read_ns = conn->read_ns, .room = tokens, .sent_ns = grown(NULL, 8 * tokens)};
    conn->due_ns = clock_ns(CLOCK_MONOTONIC) + first_ns;
    held++;
    push(conn);
    if (!first_ns) next_word(conn);
}

/* ---- what is asked ---- */

static void send_log(Conn *conn) {
    Bytes all = {0};
    append(&all, "", 0);
    for (int64_t i = 0; i < logs_used; i++) {
        append(&all, (char *)&logs[i], 3 * sizeof(int64_t));
        append(&all, (char *)logs[i].sent_ns, logs[i].count * sizeof(int64_t));
    }
    answer(conn, "application/octet-stream", all.data, all.used);
    free(all.data);
}

static void reset(void) {
    for (int fd = 0; fd < 1 << 20; fd++)
        if (conns[fd]) conns[fd]->log = -1;
    for (int64_t i = 0; i < logs_used; i++) free(logs[i].sent_ns);
    logs_used = requests = ended = chunks = 0;
}

static void handle(Conn *conn, const char *head, const char *body) {
    static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1,\"owned_by\":\"redline\"}]}";
    char text[200];
    const char *path = strchr(head, ' ');
    if (!strncmp(head, "POST ", 5)) {
        conn->chat = !strncmp(path, " /v1/chat/", 10);
        begin(conn, body);
    } else if (!strncmp(path, " /counts", 8)) {
        answer(conn, "application/json", text, sprintf(text, "{\"requests\":%ld,\"ended\":%ld,\"chunks\":%ld,\"held\":%ld}",
                                                       (long)requests, (long)ended, (long)chunks, (long)held));
    } else if (!strncmp(path, " /log", 5)) {
        send_log(conn);
    } else if (!strncmp(path, " /reset", 7)) {
        reset();
        answer(conn, "application/json", "{}", 2);
    } else {
        answer(conn, "application/json", models, sizeof models - 1);
    }
}

static size_t body_size(const char *head, const char *end) {
    for (const char *line = head; line && line < end; line = strstr(line, "\r\n")) {
        line += line == head ? 0 : 2;
        if (!strncasecmp(line, "content-length:", 15)) return strtoul(line + 15, NULL, 10);
    }
    return 0;
}

static void readable(Conn *conn) {
    char data[65536];
    ssize_t size = recv(conn->fd, data, sizeof data, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        drop(conn);
        return;
    }
    append(&conn->in, data, size);
    char *end = strstr(conn->in.data, "\r\n\r\n");
    if (!end || conn->in.used < (size_t)(end + 4 - conn->in.data) + body_size(conn->in.data, end)) return;
    conn->in.used = 0; /* one request at a time */
    handle(conn, conn->in.data, end + 4);
}

static void welcome(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Conn *conn = conns[fd] = grown(NULL, sizeof *conn);
        *conn = (Conn){.fd = fd, .heap_at = -1, .log = -1};
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static void wake_at(int64_t due_ns) {
    static int64_t set_ns;
    if (due_ns == set_ns) return;
    struct itimerspec at = {.it_value = {.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
    set_ns = due_ns;
}

int main(int count, char **arguments) {
    if (count != 3) return fprintf(stderr, "usage: mock_server TOKENS_PER_S FIRST_TOKEN_MS\n"), 2;
    gap_ns = (int64_t)(1e9 / atof(arguments[1]));
    first_ns = (int64_t)(1e6 * atof(arguments[2]));
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max > 1 << 20 ? 1 << 20 : files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    if (bind(listener, (struct sockaddr *)&here, size) || listen(listener, 4096)) return perror("listen"), 1;
    getsockname(listener, (struct sockaddr *)&here, &size);
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int own[] = {listener, timer, STDIN_FILENO};
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = own[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, own[i], &event)) return perror("standard input must be a pipe"), 1;
    }
    for (;;) {
        struct epoll_event events[256];
        int64_t expired;
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO) return 0;
            if (fd == listener) welcome(listener);
            else if (fd == timer) (void)!read(timer, &expired, sizeof expired);
            else {
                if (conns[fd] && events[i].events & EPOLLOUT) flush(conns[fd]);
                if (conns[fd] && events[i].events & ~EPOLLOUT) readable(conns[fd]);
            }
        }
        for (int64_t now_ns = clock_ns(CLOCK_MONOTONIC); heap_used && heap[0]->due_ns <= now_ns;) next_word(heap[0]);
        if (heap_used) wake_at(heap[0]->due_ns);
    }
}
