// Package volutetest tests applications the way their users use them, without a
// port, a file or a process: a whole server in memory, clients of it, and a
// record of what the application publishes and to whom.
//
// Inside of a testing/synctest bubble a test owns the time: waiting for a
// subscription that expires in an hour takes no time at all.
//
//	func TestSay(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			s := volutetest.Start(t, server.Default(), server.App(chat.New()))
//			alice, bob := s.Connect(volutetest.As("alice")), s.Connect(volutetest.As("bob"))
//			bob.Subscribe("room")
//			alice.Call("say", "hello", nil)
//			bob.WantPublication("room", `{"from":"alice","text":"hello"}`)
//		})
//	}
//
// [Start] runs the real server: configuration, permissions, history, presence and
// the WebSocket protocol are those of production; only the listener is memory. It
// works outside of a bubble as well, in real time. That is the way to test with
// worker processes and gRPC backends, which are outside of any bubble.
//
// [Connect] leaves the server out: requests go straight to the handlers of an app,
// and a [Recorder] stands for the server's API.
//
// Methods named after a request fail the test if it is refused; those that start
// with Try return the error, an [*volute.Error] or [*volute.Disconnect], as it is
// told to the client:
//
//	err := alice.TrySubscribe("admin")
//	if !errors.Is(err, volute.ErrPermissionDenied) { … }
//
// Methods that start with Want fail the test, too. All of them may be called from
// the test's own goroutine only.
package volutetest
