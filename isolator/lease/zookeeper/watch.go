package zookeeper

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
)

// Watch signals when the beacon of prefix was touched, and after every loss of the connection. A prefix without a whole first
// part ("" or "cla") is looked at by a timer instead: it signals every second.
func (c *Client) Watch(ctx context.Context, prefix string) <-chan struct{} {
	out := make(chan struct{}, 1)
	go c.watch(ctx, prefix, out)
	return out
}

func (c *Client) watch(ctx context.Context, prefix string, out chan<- struct{}) {
	const pause = time.Second
	at := ""
	if first, rest, whole := strings.Cut(prefix, "/"); whole && first != "" {
		if node, _, wholeNode := strings.Cut(rest, "/"); first == "requests" && wholeNode {
			first += "." + node
		}
		if first != "requests" { // all nodes' requests have no beacon in common
			at = c.o.Root + "/beacons/" + first
		}
	}
	for ctx.Err() == nil {
		var touched <-chan zk.Event
		if at != "" {
			events, err := do(ctx, c, func() (<-chan zk.Event, error) {
				_, _, events, err := c.conn.ExistsW(at)
				return events, err
			})
			if errors.Is(err, zk.ErrClosing) {
				return
			}
			if err == nil {
				touched = events
			}
		}
		// Whatever changed before the watch was set shows when the receiver reads again.
		select {
		case out <- struct{}{}:
		default:
		}
		if touched != nil {
			select {
			case <-touched:
				continue
			case <-ctx.Done():
				return
			case <-c.done:
				return
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		case <-c.done:
			return
		}
	}
}
