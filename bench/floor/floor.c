// floor is the smallest program that makes the system calls of a WebSocket
// server: no runtime, no allocation per message, no checks. It understands the
// load generator and nobody else. What it costs is what the kernel costs.
//
//	floor PORT PING_SECONDS
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 1 << 20, CHANNELS = 1 << 16, BUFFER = 1 << 16 };

struct client { unsigned char websocket, publisher, connected; };
struct channel { char name[64]; int *fds, n, cap; };

static struct client clients[MAX_FD];
static struct channel channels[CHANNELS];
static int epfd, highest, ping_ms;
static char in[2 * BUFFER + 1], out[2 * BUFFER];
static char kept[BUFFER]; // of a request that is not complete; there is one publisher
static size_t nkept;

static void die(const char *what) { perror(what); exit(1); }

static void put(int fd, const void *p, size_t n) {
	if (send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n && errno != EPIPE && errno != ECONNRESET) die("send");
}

// frame writes a text frame's header before payload, which has 4 bytes of room
// in front, and returns its start.
static char *frame(char *payload, size_t n, size_t *size) {
	char *p = payload - (n < 126 ? 2 : 4);
	p[0] = (char)0x81;
	if (n < 126) p[1] = (char)n;
	else p[1] = 126, p[2] = (char)(n >> 8), p[3] = (char)n;
	*size = n + (payload - p);
	return p;
}

static struct channel *channel(const char *name, size_t n) {
	unsigned h = 2166136261u;
	for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)name[i]) * 16777619u;
	for (;; h++) {
		struct channel *c = &channels[h % CHANNELS];
		if (!c->name[0]) memcpy(c->name, name, n);
		if (!strncmp(c->name, name, n) && !c->name[n]) return c;
	}
}

// command answers one line of a client.
static void command(int fd, char *line, size_t n) {
	char *body = out + 8, *s;
	size_t size;
	int len;
	if (n == 2) return; // a pong
	line[n] = 0;
	unsigned id = strtoul(line + 6, 0, 10);
	if ((s = strstr(line, "\"rpc\":{\"method\":\"echo\",\"data\":"))) {
		s += 30;
		len = sprintf(body, "{\"id\":%u,\"rpc\":{\"data\":%.*s", id, (int)(line + n - s), s);
	} else if ((s = strstr(line, "\"subscribe\":{\"channel\":\""))) {
		s += 24;
		struct channel *c = channel(s, strchr(s, '"') - s);
		if (c->n == c->cap) c->fds = realloc(c->fds, (c->cap = c->cap ? 2 * c->cap : 4) * sizeof(int));
		c->fds[c->n++] = fd;
		len = sprintf(body, "{\"id\":%u,\"subscribe\":{}}", id);
	} else {
		clients[fd].connected = 1;
		len = sprintf(body, "{\"id\":%u,\"connect\":{\"client\":\"8a0b2c1e-5f39-4b36-9a0e-7a1a3f9c2d11\",\"version\":\"floor\",\"ping\":%d,\"pong\":true}}", id, ping_ms / 1000);
	}
	char *p = frame(body, len, &size);
	put(fd, p, size);
}

static void websocket(int fd, unsigned char *p, size_t n) {
	while (n >= 6) {
		size_t len = p[1] & 0x7f, head = 2;
		if (len == 126) len = p[2] << 8 | p[3], head = 4;
		if (n < head + 4 + len) break;
		unsigned char *mask = p + head, *body = p + head + 4, kept = body[len];
		for (size_t i = 0; i < len; i++) body[i] ^= mask[i & 3];
		char *line = (char *)body, *end = line + len;
		while (line < end) {
			char *nl = memchr(line, '\n', end - line);
			if (!nl) nl = end;
			command(fd, line, nl - line);
			line = nl + 1;
		}
		body[len] = kept;
		p += head + 4 + len, n -= head + 4 + len;
	}
	if (n) fputs("floor: half a frame\n", stderr), exit(1);
}

// publish serves pipelined POST requests.
static void publish(int fd, char *p, size_t n) {
	static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"result\":{}}";
	while (n) {
		char *body = strstr(p, "\r\n\r\n"), *length = strcasestr(p, "content-length:");
		if (!body || !length || length > body) break;
		body += 4;
		size_t len = strtoul(length + 15, 0, 10), size;
		if (body + len > p + n) break;
		char *name = strstr(body, "\"channel\":\"") + 11, *data = strstr(body, "\"data\":") + 7;
		struct channel *c = channel(name, strchr(name, '"') - name);
		char *to = out + 8;
		int m = sprintf(to, "{\"push\":{\"channel\":\"%s\",\"pub\":{\"data\":%.*s}}}", c->name, (int)(body + len - 1 - data), data);
		to = frame(to, m, &size);
		put(fd, ok, sizeof ok - 1);
		for (int i = 0; i < c->n; i++) put(c->fds[i], to, size);
		n -= body + len - p, p = body + len;
	}
	memcpy(kept, p, nkept = n);
}

static void request(int fd, size_t n) {
	static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
	if (clients[fd].publisher || strncmp(in, "GET", 3)) {
		clients[fd].publisher = 1;
		return publish(fd, in, n);
	}
	clients[fd].websocket = 1;
	put(fd, upgrade, sizeof upgrade - 1);
}

static double now_ms(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

// pings sends what is due so that everybody is pinged once per interval.
static void pings(void) {
	static double last, owed;
	static int at;
	double now = now_ms();
	if (last) owed += highest * (now - last) / ping_ms;
	last = now;
	for (; owed >= 1; owed--) {
		at = at < highest ? at + 1 : 0;
		if (clients[at].connected) put(at, "\x81\x02{}", 4);
	}
}

int main(int argc, char **argv) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct epoll_event events[128], e = {.events = EPOLLIN};
	int one = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ping_ms = argc > 2 ? (int)(atof(argv[2]) * 1000) : 25000;
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (void *)&a, sizeof a) || listen(l, 4096)) die("listen");
	close(fcntl(l, F_DUPFD_CLOEXEC, 19000)); // the whole table at once
	epfd = epoll_create1(0);
	e.data.fd = l;
	epoll_ctl(epfd, EPOLL_CTL_ADD, l, &e);
	for (;;) {
		int n = epoll_wait(epfd, events, 128, 50);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == l) {
				while ((fd = accept4(l, 0, 0, SOCK_NONBLOCK)) >= 0) {
					setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
					clients[fd] = (struct client){0};
					if (fd > highest) highest = fd;
					e.data.fd = fd;
					epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
				}
				continue;
			}
			size_t before = clients[fd].publisher ? nkept : 0;
			memcpy(in, kept, before);
			ssize_t got = recv(fd, in + before, BUFFER, MSG_DONTWAIT);
			if (got <= 0) {
				if (got == 0 || errno != EAGAIN) clients[fd] = (struct client){0}, close(fd);
				continue;
			}
			in[got += before] = 0;
			if (clients[fd].websocket) websocket(fd, (unsigned char *)in, got);
			else request(fd, got);
		}
		pings();
	}
}
