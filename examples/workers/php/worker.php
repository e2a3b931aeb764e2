<?php

// An application in one file, without any package: a worker that speaks the
// JSON codec. The first half is yours to change, the second half is the protocol.
//
//   workers: { app: { command: php worker.php, codec: json } }

declare(strict_types=1);

// ---- What the application decides -------------------------------------------

/** Answers one event: a result, an error or a disconnect. */
function answer(object $event): array
{
    return match ($event->event) {
        'connect' => result(['user' => $event->data->user ?? 'guest']),
        'subscribe' => $event->channel === 'secret' ? refuse(403, 'this channel is secret') : result(),
        'publish' => str_contains(json_encode($event->data), 'spam') ? refuse(400, 'no spam please') : result(),
        'refresh', 'sub_refresh' => result(['expire_at' => time() + 3600]),
        'rpc' => rpc($event->method, $event->data ?? null, $event),
        default => refuse(108, "nobody answers {$event->event} here"),
    };
}

function rpc(string $method, mixed $data, object $event): array
{
    return match ($method) {
        'add' => result(['data' => $data->a + $data->b]),
        'echo' => result(['data' => $data]),
        'whoami' => result(['data' => ['user' => $event->user, 'client' => $event->client]]),
        'publish' => result(['data' => call('centrifuge.Publish', ['channel' => $data->channel, 'data' => $data->data])]),
        default => refuse(404, "there is no method $method"),
    };
}

function result(array $fields = []): array
{
    return ['result' => (object) $fields];
}

function refuse(int $code, string $message): array
{
    return ['error' => ['code' => $code, 'message' => $message]];
}

// ---- The protocol: frames on STDIN and STDOUT, calls back to the server ------

const CONTROL = 0x01;
const JSON = 0x08;
const ERROR = 0x40;

/** @return array{int, int[], string}|null flags, options and payload; null at the end */
function receive($stream): ?array
{
    if (($head = read($stream, 12)) === null) {
        return null;
    }
    ['words' => $words, 'flags' => $flags, 'size' => $size] = unpack('Cwords/Cflags/Vsize', $head);
    $options = array_values(unpack('V*', read($stream, 4 * (($words & 15) - 3)) ?? '') ?: []);
    return [$flags, $options, read($stream, $size) ?? ''];
}

function read($stream, int $size): ?string
{
    for ($bytes = ''; strlen($bytes) < $size; $bytes .= $part) {
        $part = fread($stream, $size - strlen($bytes));
        if ($part === '' || $part === false) {
            return null;
        }
    }
    return $bytes;
}

function send($stream, int $flags, array $options, string $payload): void
{
    $head = pack('CCV', 0x10 | (3 + count($options)), $flags, strlen($payload));
    $frame = $head . pack('Vv', crc32($head), 0) . pack('V*', ...$options) . $payload;
    for (; $frame !== ''; $frame = substr($frame, $written)) {
        $written = fwrite($stream, $frame) ?: exit(1); // the server has gone
    }
}

/** Calls a method of the server, e.g. centrifuge.Publish, and returns its result. */
function call(string $method, mixed $arguments): mixed
{
    static $server = null, $sequence = 0;
    $server ??= stream_socket_client(getenv('RR_RPC') ?: 'tcp://127.0.0.1:6001');
    send($server, JSON, [++$sequence, strlen($method)], $method . json_encode($arguments));
    [$flags, , $payload] = receive($server) ?? throw new RuntimeException('the server has closed the RPC connection');
    $body = substr($payload, strlen($method));
    if ($flags & ERROR) {
        throw new RuntimeException($body);
    }
    $response = json_decode($body, flags: JSON_THROW_ON_ERROR);
    return $response->result ?? throw new RuntimeException($response->error->message);
}

// STDOUT is for frames: what is printed goes to the log instead.
ini_set('display_errors', 'stderr');
ob_start(fn (string $text) => fwrite(STDERR, $text) ? '' : '', 1);

$answer ??= answer(...); // a file that includes this one may have an answer of its own

while ([$flags, , $payload] = receive(STDIN)) {
    $message = json_decode($payload);
    if ($flags & CONTROL) {
        isset($message->stop) ? exit(0) : send(STDOUT, CONTROL, [], json_encode(['pid' => getmypid()]));
        continue;
    }
    try {
        send(STDOUT, JSON, [0], json_encode($answer($message), JSON_THROW_ON_ERROR | JSON_PRESERVE_ZERO_FRACTION));
    } catch (Throwable $error) {
        send(STDOUT, ERROR, [], (string) $error); // goes to the log; the client may try again
    }
}
