<?php

// Services by type of event, and interceptors around them: those of '*' first,
// outermost, then those of the event's own type, in the order of the list. The same
// application in Go is in examples/interceptors.
//
//   workers: { app: { command: php interceptors.php, codec: json } }

declare(strict_types=1);

interface Service
{
    /** Answers with a result. Throws Refusal for what the client shall be told. */
    public function handle(object $event): array;
}

interface Interceptor
{
    /** Answers itself, or passes the event, changed or not, to $next. */
    public function process(object $event, callable $next): array;
}

/** What a client is told instead of a result. */
class Refusal extends Exception
{
    public function __construct(public readonly string $kind, int $code, string $message)
    {
        parent::__construct($message, $code);
    }

    public static function error(int $code, string $message): self
    {
        return new self('error', $code, $message);
    }

    public static function disconnect(int $code, string $reason): self
    {
        return new self('disconnect', $code, $reason);
    }
}

// ---- Interceptors -----------------------------------------------------------

/** Says what happened to each event, and how long it took. */
final class TelemetryInterceptor implements Interceptor
{
    public function process(object $event, callable $next): array
    {
        $outcome = 'ok';
        $begin = hrtime(true);
        try {
            return $next($event);
        } catch (Refusal $refusal) {
            $outcome = "$refusal->kind {$refusal->getCode()}";
            throw $refusal;
        } catch (Throwable $failure) {
            $outcome = "failed: {$failure->getMessage()}";
            throw $failure;
        } finally {
            $name = $event->channel ?? $event->method ?? '';
            $user = $event->user ?? '';
            $took = intdiv(hrtime(true) - $begin, 1000);
            fwrite(STDERR, "telemetry: event=$event->event name=$name user=$user outcome=[$outcome] took={$took}µs\n");
        }
    }
}

/** Lets known users pass, and tells the services who they are. */
final class AuthInterceptor implements Interceptor
{
    private const TOKENS = ['a-secret' => 'alice', 'b-secret' => 'bob'];
    private const ROLES = ['alice' => 'admin', 'bob' => 'member'];

    public function process(object $event, callable $next): array
    {
        $user = $event->event === 'connect' ? self::TOKENS[$event->data->token ?? ''] ?? null : $event->user;
        $role = self::ROLES[$user] ?? null;
        if ($role === null) {
            throw Refusal::disconnect(4501, 'unauthorized');
        }
        if ($role !== 'admin' && str_starts_with($event->channel ?? $event->method ?? '', 'admin')) {
            throw Refusal::error(403, 'for administrators only');
        }
        $event->attributes = ['user' => $user, 'role' => $role];
        return $next($event);
    }
}

// ---- Services ---------------------------------------------------------------

final class ConnectService implements Service
{
    public function handle(object $event): array
    {
        return ['user' => $event->attributes['user'], 'data' => ['role' => $event->attributes['role']]];
    }
}

final class SubscribeService implements Service
{
    public function handle(object $event): array
    {
        return ['info' => ['role' => $event->attributes['role']]];
    }
}

final class PublishService implements Service
{
    public function handle(object $event): array
    {
        return ['data' => ['from' => $event->user, 'text' => $event->data]];
    }
}

final class RPCService implements Service
{
    public function handle(object $event): array
    {
        return match ($event->method) {
            'whoami' => ['data' => $event->attributes],
            'admin:stats' => ['data' => ['users' => 2]],
            'broken' => throw new RuntimeException('no database'),
            default => throw Refusal::error(404, 'no such method'),
        };
    }
}

final class RefreshService implements Service
{
    public function handle(object $event): array
    {
        return ['expire_at' => time() + 3600];
    }
}

// ---- Configuration ----------------------------------------------------------

$config = [
    'services' => [
        'connect' => ConnectService::class,
        'subscribe' => SubscribeService::class,
        'refresh' => RefreshService::class,
        'publish' => PublishService::class,
        'rpc' => RPCService::class,
    ],
    'interceptors' => [
        'connect' => [AuthInterceptor::class],
        'subscribe' => [AuthInterceptor::class],
        'rpc' => [AuthInterceptor::class],
        '*' => [TelemetryInterceptor::class],
    ],
];

// ---- From the configuration to an answer ------------------------------------

/** Makes one callable of a service and the interceptors around it. */
function chain(array $config, string $type): callable
{
    $service = $config['services'][$type] ?? null;
    $next = fn (object $event): array => $service === null
        ? throw new RuntimeException("no service for $type events")
        : (new $service())->handle($event);
    $interceptors = [...$config['interceptors']['*'] ?? [], ...$config['interceptors'][$type] ?? []];
    foreach (array_reverse($interceptors) as $class) {
        $interceptor = new $class();
        $next = fn (object $event): array => $interceptor->process($event, $next);
    }
    return $next;
}

$answer = function (object $event) use ($config): array {
    static $chains = [];
    try {
        return ['result' => (object) ($chains[$event->event] ??= chain($config, $event->event))($event)];
    } catch (Refusal $refusal) {
        $text = $refusal->kind === 'error' ? 'message' : 'reason';
        return [$refusal->kind => ['code' => $refusal->getCode(), $text => $refusal->getMessage()]];
    }
};

require __DIR__ . '/worker.php'; // the protocol
