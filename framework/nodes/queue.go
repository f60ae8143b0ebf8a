package nodes

import (
	"context"
	"fmt"
	"sync"

	"github.com/holdfast-io/holdfast/scheduler"
)

// identify gives what makes a call the same as another, and the volume whose calls it has to keep in order with.
func identify(c scheduler.Call) (key, volume string, ok bool) {
	switch c := c.(type) {
	case scheduler.Grant:
		return fmt.Sprintf("grant %d %s", c.Epoch, c.Nonce), string(c.Volume), true
	case scheduler.CancelGrant:
		return fmt.Sprintf("cancel %d %s", c.Epoch, c.Nonce), string(c.Volume), true
	case scheduler.Revoke:
		return fmt.Sprintf("revoke %d", c.Epoch), string(c.Volume), true
	case scheduler.CreateVolume:
		return "create " + c.Op, string(c.Volume.UID), true
	case scheduler.RemoveVolumeData:
		return "remove " + c.Op, string(c.Volume.UID), true
	case scheduler.RetireNode:
		return fmt.Sprintf("retire %d", c.Generation), "node " + string(c.Node), true
	case scheduler.AskNode:
		return "ask " + c.Operation.ID + " " + string(c.Operation.Node), "op " + c.Operation.ID, true
	case scheduler.DropClaim:
		return "drop", string(c.Volume), true
	case scheduler.ForgetRequest:
		return "forget " + c.Op, "op " + c.Op, true
	}
	return "", "", false
}

// callQueue gives calls to workers: one at a time and in order for each volume, any number of volumes side by side.
type callQueue struct {
	mu      sync.Mutex
	waiting map[string][]queued // by volume, in order; the first one may be under way
	ready   []string            // volumes whose first call no worker has
	more    chan struct{}       // one token for each element of ready, at most the channel's size
}

type queued struct {
	key  string
	call scheduler.Call
}

func newCallQueue() *callQueue {
	return &callQueue{waiting: map[string][]queued{}, more: make(chan struct{}, 1)}
}

func (q *callQueue) add(volume, key string, c scheduler.Call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.waiting[volume]
	for _, other := range line {
		if other.key == key {
			return
		}
	}
	q.waiting[volume] = append(line, queued{key, c})
	if len(line) == 0 {
		q.ready = append(q.ready, volume)
		q.wake()
	}
}

func (q *callQueue) wake() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// next waits for a volume with a call to make.
func (q *callQueue) next(ctx context.Context) (volume string, c scheduler.Call, ok bool) {
	for {
		q.mu.Lock()
		if len(q.ready) > 0 {
			volume = q.ready[0]
			q.ready = q.ready[1:]
			c = q.waiting[volume][0].call
			if len(q.ready) > 0 {
				q.wake() // for another worker
			}
			q.mu.Unlock()
			return volume, c, true
		}
		q.mu.Unlock()
		select {
		case <-q.more:
		case <-ctx.Done():
			return "", nil, false
		}
	}
}

// done ends the call under way on a volume.
func (q *callQueue) done(volume string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	rest := q.waiting[volume][1:]
	if len(rest) == 0 {
		delete(q.waiting, volume)
		return
	}
	q.waiting[volume] = rest
	q.ready = append(q.ready, volume)
	q.wake()
}
