package storeapi

import "context"

// Draw is told of the memory that a Client holds for its caller: the bytes of a
// frame as it arrives, before anyone has asked for its series, and a negative
// number where some of them are let go of again. An error ends the stream with
// that error. It is called by the goroutines of all streams of its context.
type Draw func(bytes int64) error

type drawKey struct{}

// WithDraw returns a context whose Series calls draw what they hold.
func WithDraw(ctx context.Context, draw Draw) context.Context {
	return context.WithValue(ctx, drawKey{}, draw)
}

// drawOf returns the Draw of ctx, or one that allows everything.
func drawOf(ctx context.Context) Draw {
	if draw, ok := ctx.Value(drawKey{}).(Draw); ok {
		return draw
	}
	return func(int64) error { return nil }
}
