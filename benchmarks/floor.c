/* The least a client can do: one epoll loop that reads with the kernel's receive stamps, and parses nothing but them.
 *
 * usage: floor PORT streams COUNT TOKENS       COUNT streams, started within a second
 *        floor PORT rate PER_S SECONDS         one-token requests at a constant rate
 * Prints one JSON object: median and 99th percentile in microseconds.
 *   chunk_lag_us   the kernel's stamp minus the server's
 *   read_lag_us    the same with the time at which the chunk was read
 *   ttft_error_us  time to first word, minus what passed between the server's reading and its writing
 *   late_us        sending after the due time
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int64_t *all;
    size_t used, room;
} Samples;

static Samples lags, read_lags, errors, lates;
static int64_t sent_ns[1 << 20];
static int idle[1 << 20], idle_used, poller, ended;
static char payload[1024];
static int payload_size;
static struct sockaddr_in server = {.sin_family = AF_INET};

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void add(Samples *samples, int64_t sample) {
    if (samples->used == samples->room) {
        samples->room = 2 * samples->room + 4096;
        samples->all = realloc(samples->all, samples->room * sizeof sample);
        if (!samples->all) abort();
    }
    samples->all[samples->used++] = sample;
}

static int by_size(const void *one, const void *other) {
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

static void print(const char *name, Samples *samples) {
    qsort(samples->all, samples->used, sizeof(int64_t), by_size);
    if (samples->used)
        printf(",\"%s\":[%.1f,%.1f]", name, samples->all[samples->used / 2] / 1e3, samples->all[samples->used * 99 / 100] / 1e3);
}

static int connected(void) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&server, sizeof server)) perror("connect"), exit(1);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

static void ask(int64_t due_ns) {
    int fd = idle_used ? idle[--idle_used] : connected();
    add(&lates, clock_ns(CLOCK_MONOTONIC) - due_ns);
    sent_ns[fd] = clock_ns(CLOCK_REALTIME);
    if (send(fd, payload, payload_size, MSG_NOSIGNAL) != payload_size) perror("send"), exit(1);
}

static void readable(int fd) {
    char data[65536], control[64];
    struct iovec into = {.iov_base = data, .iov_len = sizeof data - 1};
    struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(fd, &message, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) fprintf(stderr, "the server closed a connection\n"), exit(1);
    int64_t read_ns = clock_ns(CLOCK_REALTIME), arrived_ns = read_ns;
    struct cmsghdr *first = CMSG_FIRSTHDR(&message);
    if (first && first->cmsg_type == SO_TIMESTAMPNS) {
        struct timespec stamp;
        memcpy(&stamp, CMSG_DATA(first), sizeof stamp);
        arrived_ns = stamp.tv_sec * 1000000000LL + stamp.tv_nsec;
    }
    data[size] = 0;
    for (char *at = data; (at = strstr(at, "\"sent_ns\":"));) {
        int64_t written_ns = strtoll(at + 10, &at, 10);
        add(&lags, arrived_ns - written_ns);
        add(&read_lags, read_ns - written_ns);
        if (sent_ns[fd]) add(&errors, arrived_ns - sent_ns[fd] - (written_ns - strtoll(at + 11, NULL, 10)));
        sent_ns[fd] = 0;
    }
    if (size >= 5 && !memcmp(data + size - 5, "0\r\n\r\n", 5)) {
        ended++;
        idle[idle_used++] = fd;
    }
}

int main(int count, char **arguments) {
    if (count != 5) return fprintf(stderr, "usage: floor PORT streams COUNT TOKENS | floor PORT rate PER_S SECONDS\n"), 2;
    int streams = !strcmp(arguments[2], "streams"), tokens = streams ? atoi(arguments[4]) : 1;
    double per_s = atof(arguments[3]);
    int total = streams ? (int)per_s : (int)(per_s * atof(arguments[4])), asked = 0;
    char body[700], words[240] = "";
    for (int i = 0; i < 32; i++) strcat(words, " word");
    int size = sprintf(body, "{\"model\":\"mock\",\"stream\":true,\"stamps\":true,\"stream_options\":{\"include_usage\":true},\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":%d}", words, tokens);
    payload_size = sprintf(payload, "POST /v1/chat/completions HTTP/1.1\r\nhost: mock\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", size, body);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.sin_port = htons(atoi(arguments[1]));
    poller = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = timer};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    for (int i = 0; i < (streams ? total : 32); i++) idle[idle_used++] = connected();

    int64_t gap_ns = (int64_t)(1e9 / per_s), due_ns = clock_ns(CLOCK_MONOTONIC) + 20000000;
    while (ended < total) {
        struct epoll_event events[256];
        int64_t expired;
        if (asked < total) {
            struct itimerspec at = {.it_value = {.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        }
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == timer) (void)!read(timer, &expired, sizeof expired);
            else readable(events[i].data.fd);
        }
        for (; asked < total && due_ns <= clock_ns(CLOCK_MONOTONIC); asked++, due_ns += gap_ns) ask(due_ns);
    }
    printf("{\"sent\":%d,\"chunks\":%zu", asked, lags.used);
    print("chunk_lag_us", &lags);
    print("read_lag_us", &read_lags);
    print("ttft_error_us", &errors);
    print("late_us", &lates);
    printf("}\n");
}
