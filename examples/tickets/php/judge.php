<?php

// Judges chat lines, as judge() in house.go does: the same event, answered by a
// pool of PHP processes. examples/workers/php shows more of what a worker can do.
//
//   make run RUN='-php examples/tickets/php/judge.php'

declare(strict_types=1);

const MAX_LINE = 280;

function judge(object $event): array
{
    $text = is_object($event->data) ? ($event->data->text ?? null) : null;
    if (!is_string($text)) {
        return refuse(450, 'a line is {"text": …} with something in it');
    }
    $text = preg_replace('/[^\P{C}\s]+/u', '', $text);           // what cannot be seen
    $text = trim(preg_replace('/[\s\p{Z}]+/u', ' ', $text), ' '); // one line
    $letters = preg_match_all('/./us', $text);
    return match (true) {
        $letters === 0 => refuse(450, 'a line is {"text": …} with something in it'),
        $letters > MAX_LINE => refuse(451, 'a line has at most ' . MAX_LINE . ' letters'),
        default => ['result' => ['data' => ['text' => $text, 'at' => (int) (microtime(true) * 1000)]]],
    };
}

function refuse(int $code, string $message): array
{
    return ['error' => ['code' => $code, 'message' => $message]];
}

// One event is one frame on STDIN, its answer one on STDOUT: a header of 12 bytes
// (length and flags, size, checksum), options of 4 bytes each, JSON.
const CONTROL = 0x01;
const JSON = 0x08;

while (strlen($head = (string) stream_get_contents(STDIN, 12)) === 12) {
    ['words' => $words, 'flags' => $flags, 'size' => $size] = unpack('Cwords/Cflags/Vsize', $head);
    $frame = stream_get_contents(STDIN, 4 * (($words & 15) - 3) + $size);
    $message = json_decode(substr($frame, -$size));
    if (isset($message->stop)) {
        break;
    }
    $answer = $flags & CONTROL ? ['pid' => getmypid()] : judge($message);
    $payload = json_encode($answer, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE);
    $options = $flags & CONTROL ? '' : pack('V', 0);
    $head = pack('CCV', 0x13 + strlen($options) / 4, $flags & CONTROL ?: JSON, strlen($payload));
    fwrite(STDOUT, $head . pack('Vv', crc32($head), 0) . $options . $payload);
}
