package codec

import (
	"context"
	"fmt"

	"github.com/volute-io/volute"
	"google.golang.org/protobuf/proto"
)

// Call performs one operation on a server and returns the response message. An
// error means that there was no response.
type Call func(ctx context.Context, op *Operation, req proto.Message) (proto.Message, error)

// Client returns an API that asks a server through call. Errors inside of
// responses are returned as *volute.Error.
func Client(call Call) volute.API { return client{call} }

type client struct{ call Call }

// do performs the operation called name: the words of q are written into the
// request, those of R read from the result.
func do[R any](ctx context.Context, c client, name string, q any) (r R, err error) {
	op := OperationByName(name)
	req := op.NewRequest()
	if lost := write(req.ProtoReflect(), words(q), false); lost != "" {
		return r, fmt.Errorf("%s: the server API has no field for %s", name, lost)
	}
	resp, err := c.call(ctx, op, req)
	if err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	found, err := outcome(resp.ProtoReflect(), &r, false)
	if err == nil && !found {
		err = fmt.Errorf("%s: the response has neither result nor error", name)
	}
	return r, err
}

func (c client) Publish(ctx context.Context, r volute.PublishRequest) (volute.PublishResult, error) {
	return do[volute.PublishResult](ctx, c, "publish", &r)
}

func (c client) Broadcast(ctx context.Context, r volute.BroadcastRequest) ([]volute.BroadcastResult, error) {
	return do[broadcasts](ctx, c, "broadcast", &r)
}

func (c client) Subscribe(ctx context.Context, r volute.SubscribeRequest) error {
	_, err := do[nothing](ctx, c, "subscribe", &r)
	return err
}

func (c client) Unsubscribe(ctx context.Context, r volute.UnsubscribeRequest) error {
	_, err := do[nothing](ctx, c, "unsubscribe", &r)
	return err
}

func (c client) Disconnect(ctx context.Context, r volute.DisconnectRequest) error {
	_, err := do[nothing](ctx, c, "disconnect", &r)
	return err
}

func (c client) Refresh(ctx context.Context, r volute.RefreshRequest) error {
	_, err := do[nothing](ctx, c, "refresh", &r)
	return err
}

func (c client) Presence(ctx context.Context, channel string) (map[string]volute.ClientInfo, error) {
	return do[presence](ctx, c, "presence", (*channelRequest)(&channel))
}

func (c client) PresenceStats(ctx context.Context, channel string) (volute.PresenceStats, error) {
	return do[volute.PresenceStats](ctx, c, "presence_stats", (*channelRequest)(&channel))
}

func (c client) History(ctx context.Context, r volute.HistoryRequest) (volute.HistoryResult, error) {
	return do[volute.HistoryResult](ctx, c, "history", &r)
}

func (c client) MapPublish(ctx context.Context, r volute.MapPublishRequest) (volute.MapPublishResult, error) {
	return do[volute.MapPublishResult](ctx, c, "map_publish", &r)
}

func (c client) MapRemove(ctx context.Context, r volute.MapRemoveRequest) (volute.MapPublishResult, error) {
	return do[volute.MapPublishResult](ctx, c, "map_remove", &r)
}

func (c client) MapReadState(ctx context.Context, r volute.MapStateRequest) (volute.MapPage, error) {
	return do[volute.MapPage](ctx, c, "map_read_state", &r)
}

func (c client) MapReadStream(ctx context.Context, r volute.MapStreamRequest) (volute.HistoryResult, error) {
	result, err := do[mapStream](ctx, c, "map_read_stream", &r)
	return volute.HistoryResult(result), err
}

func (c client) MapStats(ctx context.Context, channel string) (volute.MapStats, error) {
	return do[volute.MapStats](ctx, c, "map_stats", (*channelRequest)(&channel))
}

func (c client) MapClear(ctx context.Context, channel string) error {
	_, err := do[nothing](ctx, c, "map_clear", (*channelRequest)(&channel))
	return err
}

func (c client) SharedPollPublish(ctx context.Context, r volute.SharedPollPublishRequest) error {
	_, err := do[nothing](ctx, c, "shared_poll_publish", &r)
	return err
}

func (c client) HistoryRemove(ctx context.Context, channel string) error {
	_, err := do[nothing](ctx, c, "history_remove", (*channelRequest)(&channel))
	return err
}

func (c client) Channels(ctx context.Context, pattern string) (map[string]volute.ChannelInfo, error) {
	return do[channels](ctx, c, "channels", (*patternRequest)(&pattern))
}

func (c client) Info(ctx context.Context) (volute.Info, error) {
	return do[volute.Info](ctx, c, "info", &nothing{})
}
