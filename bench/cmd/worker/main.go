// Command worker is a worker process that answers every RPC with the data that
// came, doing as little as it can besides.
package main

import (
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/proto/proxypb"
)

func main() {
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func work() error {
	in := goridge.NewReader(os.Stdin, 16<<20)
	var frame goridge.Frame
	var out []byte
	for {
		if err := in.Read(&frame); err != nil {
			return err
		}
		var options []uint32
		var answer []byte
		switch {
		case frame.Flags&goridge.Control == 0:
			var request proxypb.RPCRequest
			if err := proto.Unmarshal(frame.Payload[frame.Options[0]:], &request); err != nil {
				return err
			}
			body, err := proto.Marshal(&proxypb.RPCResponse{Result: &proxypb.RPCResult{Data: request.Data}})
			if err != nil {
				return err
			}
			options, answer = []uint32{0}, body
		case string(frame.Payload) == `{"stop":true}`:
			return nil
		default: // who are you?
			answer = fmt.Appendf(nil, `{"pid":%d}`, os.Getpid())
		}
		out = goridge.Append(out[:0], frame.Flags, 0, options, answer)
		if _, err := os.Stdout.Write(out); err != nil {
			return err
		}
	}
}
