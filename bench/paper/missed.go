package paper

// user is what can be said of every goal whose scenario measures it.
const user = "{user} of it is outside of the kernel."

// missed says why goals are missed, by their key: where the rest goes. {name} is
// a figure of the same scenario and server.
var missed = map[string]string{
	"idle-0 ping centrifuge":                 "what is left is the kernel's work for a message each way: the floor, which does nothing else, stands beside it in the table below.",
	"fanout-10000 cpu floor":                 "two loops send at once and share two cores with the receivers, the floor sends from one thread; {user} of the CPU is outside of the kernel.",
	"calls paced floor":                      "at this pace a wake-up serves about one call, so that the Go runtime's own waking counts; {user} of the CPU is outside of the kernel, and at 20,000 calls per second a call costs {faster}.",
	"calls paced centrifuge":                 "at this pace a wake-up serves about one call, so that the Go runtime's own waking counts; at 20,000 calls per second a call costs {faster}.",
	"connect cpu centrifuge":                 "accepting and closing a socket is the kernel's work for both; {user} of the CPU is outside of it.",
	"million connect_cpu_ns 10,000 sessions": "the memory of a million sessions does not fit into the processor's caches, and the collector goes through all of it.",
	"million deliver_cpu_ns 10,000 sessions": "the memory of a million sessions does not fit into the processor's caches: each delivery reads a subscription and a session that are not there.",
	"pool paced centrifuge + gRPC + pool":    "at this pace most of a call is waking one after the other: the loop, the pool, the worker, and back; when 100 clients call all the time a call costs {full}.",
	"pool paced volute + gRPC + pool":        "both paths pay for the client's connection and for the worker's pipe; {user} of the CPU is outside of the kernel.",
	"redis-publish cpu centrifuge":           "most of a publication is the HTTP request, on net/http for both; {user} of the CPU is outside of the kernel.",
	"redis-publish full centrifuge":          "most of a publication is the HTTP request, on net/http for both, and ours checks a key, knows every option of the API and answers each request at once; the peer holds commands to Redis back for up to 100 µs, so that more are answered in one wake-up.",
	"redis-publish-history cpu centrifuge":   "most of a publication is the HTTP request, on net/http for both; {user} of the CPU is outside of the kernel.",
	"redis-publish-history full centrifuge":  "as without history.",
	"redis-fanout-1 cpu centrifuge":          "one delivery per publication: most of it is the HTTP request, on net/http for both.",
	"redis-fanout-1 full centrifuge":         "one delivery per publication: most of it is the HTTP request, as for publications without subscribers.",
	"redis-fanout-100 cpu centrifuge":        "sending is the kernel's work for both; {user} of the CPU is outside of the kernel.",
	"redis-fanout-100 full centrifuge":       "sending is the kernel's work for both.",
	"redis-channels cpu centrifuge":          "five deliveries per publication: a large part is the HTTP request, on net/http for both.",
	"redis-channels full centrifuge":         "five deliveries per publication: a large part is the HTTP request, on net/http for both.",
}
