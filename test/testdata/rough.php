<?php
// A worker of codec json that does what it is asked to, wrong things included.

function receive(): array
{
    $head = fread_all(12);
    ['first' => $first, 'flags' => $flags, 'size' => $size] = unpack('Cfirst/Cflags/Vsize', $head);
    fread_all(4 * (($first & 15) - 3));
    return [$flags, fread_all($size)];
}

function fread_all(int $n): string
{
    for ($all = ''; strlen($all) < $n; $all .= $part) {
        $part = fread(STDIN, $n - strlen($all));
        if ($part === '' || $part === false) {
            exit(0);
        }
    }
    return $all;
}

function send(int $flags, string $payload, array $options): void
{
    $head = pack('CCV', 0x10 | (3 + count($options)), $flags, strlen($payload));
    fwrite(STDOUT, $head . pack('Vv', crc32($head), 0) . pack('V*', ...$options) . $payload);
}

function answer(mixed $what): void
{
    send(0, is_string($what) ? $what : json_encode($what), [0]);
}

function rpc(array $e): void
{
    $data = $e['data'] ?? null;
    $result = fn ($data) => ['result' => ['data' => $data]];
    switch ($e['method']) {
        case 'echo': answer($result($data)); break;
        case 'pid': answer($result(getmypid())); break;
        case 'env': answer($result(getenv($data))); break;
        case 'sleep': fwrite(STDERR, "sleeping\n"); usleep($data * 1000); answer($result($data)); break;
        case 'hang': sleep(3600); break;
        case 'exit': exit($data);
        case 'error': send(0x40, 'as an error frame', []); break;
        case 'print': fwrite(STDOUT, "PHP Warning: something on stdout\n"); break;
        case 'garbage': answer('this is no JSON'); break;
        case 'twice': answer($result('first')); answer($result('second')); break;
        case 'big': answer($result(str_repeat('x', $data))); break;
        case 'stderr': fwrite(STDERR, $data . "\n"); answer($result(null)); break;
        default: answer(['error' => ['code' => 404, 'message' => 'no such method']]);
    }
}

while (true) {
    [$flags, $payload] = receive();
    $e = json_decode($payload, true);
    if ($flags & 1) {
        if ($e['stop'] ?? false) {
            exit(0);
        }
        send(1, json_encode(['pid' => getmypid()]), []);
        continue;
    }
    match ($e['event']) {
        'connect' => answer(['result' => ['user' => $e['data']['user'] ?? 'somebody', 'expire_at' => isset($e['data']['expire']) ? time() + $e['data']['expire'] : 0]]),
        'subscribe' => str_starts_with($e['channel'], 'hang') ? sleep(3600) : answer(['result' => new stdClass]),
        'refresh' => answer(['result' => ['expire_at' => time() + 3600]]),
        'publish' => answer(['result' => new stdClass]),
        'rpc' => rpc($e),
    };
}
