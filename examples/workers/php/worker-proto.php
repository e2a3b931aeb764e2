<?php

// The application of worker.php, speaking the Protobuf codec: the language of
// RoadRunner's workers, here without any package. An event is a JSON context,
// whose "type" names it, and a Protobuf request; the answer is a Protobuf response.
//
//   workers: { app: { command: php worker-proto.php, codec: proto } }

declare(strict_types=1);

// ---- What the application decides -------------------------------------------

/** Answers an event of a type with a response message, as [field number => value]. */
function answer(string $type, array $request): array
{
    return match ($type) {
        'connect' => result([CONNECT_USER => json_decode($request[CONNECT_DATA] ?? '{}')->user ?? 'guest']),
        'subscribe' => $request[CHANNEL] === 'secret' ? refuse(403, 'this channel is secret') : result(),
        'publish' => str_contains($request[PUBLISH_DATA], 'spam') ? refuse(400, 'no spam please') : result(),
        'refresh', 'subrefresh' => result([($type === 'refresh' ? REFRESH_EXPIRE_AT : SUB_REFRESH_EXPIRE_AT) => time() + 3600]),
        'rpc' => rpc($request[METHOD], json_decode($request[RPC_DATA] ?? 'null'), $request),
        default => refuse(108, "nobody answers $type here"),
    };
}

function rpc(string $method, mixed $data, array $request): array
{
    $reply = fn (mixed $data) => result([RPC_RESULT_DATA => json_encode($data, JSON_THROW_ON_ERROR | JSON_PRESERVE_ZERO_FRACTION)]);
    return match ($method) {
        'add' => $reply($data->a + $data->b),
        'echo' => $reply($data),
        'whoami' => $reply(['user' => $request[USER] ?? '', 'client' => $request[CLIENT]]),
        'publish' => $reply((object) publish($data->channel, json_encode($data->data))),
        default => refuse(404, "there is no method $method"),
    };
}

/** Publishes JSON into a channel and returns the position there. */
function publish(string $channel, string $json): object
{
    $response = decode(call('centrifuge.Publish', encode([1 => $channel, 2 => $json])));
    if (isset($response[1])) {
        throw new RuntimeException(decode($response[1])[2] ?? 'publish failed');
    }
    $position = decode($response[2] ?? '');
    return (object) array_filter(['offset' => $position[1] ?? 0, 'epoch' => $position[2] ?? '']);
}

function result(array $fields = []): array
{
    return [1 => encode($fields)];
}

function refuse(int $code, string $message): array
{
    return [2 => encode([1 => $code, 2 => $message])];
}

// Field numbers of centrifugal.centrifugo.proxy, those used above.
const CLIENT = 1, USER = 10, CHANNEL = 11, METHOD = 11;
const CONNECT_DATA = 10, PUBLISH_DATA = 12, RPC_DATA = 12;
const CONNECT_USER = 1, REFRESH_EXPIRE_AT = 2, SUB_REFRESH_EXPIRE_AT = 2, RPC_RESULT_DATA = 1;

// ---- Protobuf: just the wire types that these messages have -----------------

/** Reads a message into [field number => value]; of a repeated field, the last value. */
function decode(string $bytes): array
{
    $fields = [];
    for ($at = 0; $at < strlen($bytes);) {
        $tag = varint($bytes, $at);
        switch ($tag & 7) {
            case 0:
                $value = varint($bytes, $at);
                break;
            case 1:
            case 5: // fixed 64 and 32 bits
                $size = ($tag & 7) === 1 ? 8 : 4;
                $value = substr($bytes, $at, $size);
                $at += $size;
                break;
            case 2: // text, bytes, messages
                $size = varint($bytes, $at);
                $value = substr($bytes, $at, $size);
                $at += $size;
                break;
            default:
                throw new RuntimeException('not a Protobuf message');
        }
        $fields[$tag >> 3] = $value;
    }
    return $fields;
}

function varint(string $bytes, int &$at): int
{
    for ($value = $shift = 0; $at < strlen($bytes); $shift += 7) {
        $byte = ord($bytes[$at++]);
        $value |= ($byte & 127) << $shift;
        if ($byte < 128) {
            return $value;
        }
    }
    throw new RuntimeException('Protobuf message cut off');
}

/** Writes [field number => int or string]; a message within is a string already. */
function encode(array $fields): string
{
    $bytes = '';
    foreach ($fields as $number => $value) {
        $bytes .= is_int($value)
            ? encode_varint($number << 3) . encode_varint($value)
            : encode_varint($number << 3 | 2) . encode_varint(strlen($value)) . $value;
    }
    return $bytes;
}

function encode_varint(int $value): string
{
    for ($bytes = ''; $value > 127 || $value < 0; $value = ($value >> 7) & (PHP_INT_MAX >> 6)) {
        $bytes .= chr($value & 127 | 128);
    }
    return $bytes . chr($value);
}

// ---- Frames on STDIN and STDOUT, calls back to the server --------------------

const CONTROL = 0x01;
const ERROR = 0x40;
const PROTO = 0x80;

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

/** Calls a method of the server with a Protobuf message and returns its answer. */
function call(string $method, string $message): string
{
    static $server = null, $sequence = 0;
    $server ??= stream_socket_client(getenv('RR_RPC') ?: 'tcp://127.0.0.1:6001');
    send($server, PROTO, [++$sequence, strlen($method)], $method . $message);
    [$flags, , $payload] = receive($server) ?? throw new RuntimeException('the server has closed the RPC connection');
    $body = substr($payload, strlen($method));
    return $flags & ERROR ? throw new RuntimeException($body) : $body;
}

// STDOUT is for frames: what is printed goes to the log instead.
ini_set('display_errors', 'stderr');
ob_start(fn (string $text) => fwrite(STDERR, $text) ? '' : '', 1);

while ([$flags, $options, $payload] = receive(STDIN)) {
    if ($flags & CONTROL) {
        isset(json_decode($payload)->stop) ? exit(0) : send(STDOUT, CONTROL, [], json_encode(['pid' => getmypid()]));
        continue;
    }
    try {
        $context = json_decode(substr($payload, 0, $options[0]), flags: JSON_THROW_ON_ERROR);
        $response = answer($context->type[0], decode(substr($payload, $options[0])));
        send(STDOUT, PROTO, [0], encode($response));
    } catch (Throwable $error) {
        send(STDOUT, ERROR, [], (string) $error); // goes to the log; the client may try again
    }
}
