package event

import (
	"context"
	"slices"
	"sync"

	"github.com/holdfast-io/holdfast/framework"
)

// Room is how many events a reader may fall behind before it is cut, as in Marathon.
const Room = 1024

// MaxReaders bounds the streams that are open at once.
const MaxReaders = 4096

// Hub hands events to readers. It listens to the framework while somebody listens to it. Use NewHub.
type Hub struct {
	core framework.Core
	t    *Translator

	mu      sync.Mutex
	readers map[*Reader]struct{}
	stop    context.CancelFunc // ends listening; nil while nobody reads
}

// NewHub gives a hub for the changes of core.
func NewHub(core framework.Core, t *Translator) *Hub {
	return &Hub{core: core, t: t, readers: map[*Reader]struct{}{}}
}

// Reader is one open stream.
type Reader struct {
	hub    *Hub
	remote string
	types  []string
	full   bool
	c      chan *Event
}

// Events are those to send; it is closed when the reader was too slow, or the framework stops.
func (r *Reader) Events() <-chan *Event { return r.c }

// Count tells how many readers there are.
func (h *Hub) Count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.readers)
}

// Attach opens a stream of the given types, all when none is given; full readers get plans with whole groups. It is refused (nil) when there are MaxReaders.
func (h *Hub) Attach(remote string, types []string, full bool) *Reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.readers) >= MaxReaders {
		return nil
	}
	r := &Reader{hub: h, remote: remote, types: types, full: full, c: make(chan *Event, Room)}
	if full {
		h.t.full.Add(1)
	}
	h.readers[r] = struct{}{}
	if h.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		h.stop = stop
		go h.listen(ctx, h.core.Events(ctx))
	}
	h.send(attached(h.t.Now(), remote))
	return r
}

// Detach closes a stream.
func (r *Reader) Detach() {
	h := r.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(r)
}

// drop closes a stream; mu is held.
func (h *Hub) drop(r *Reader) {
	if _, there := h.readers[r]; !there {
		return
	}
	h.forget(r)
	if len(h.readers) == 0 {
		h.stop()
		h.stop = nil
		return
	}
	h.send(detached(h.t.Now(), r.remote))
}

// Publish hands out an event that is not a change of the state.
func (h *Hub) Publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.send(e)
}

// send hands an event to whoever wants it, and cuts who is too slow; mu is held.
func (h *Hub) send(e Event) {
	var slow []*Reader
	for r := range h.readers {
		if len(r.types) > 0 && !slices.Contains(r.types, e.Type) {
			continue
		}
		select {
		case r.c <- &e:
		default:
			slow = append(slow, r)
		}
	}
	for _, r := range slow {
		h.drop(r)
	}
}

func (h *Hub) listen(ctx context.Context, notices <-chan framework.Notice) {
	for n := range notices {
		events := h.t.Translate(n)
		h.mu.Lock()
		if ctx.Err() == nil {
			for _, e := range events {
				h.send(e)
			}
		}
		h.mu.Unlock()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return // nobody reads any more; who came since has a listener of its own
	}
	// The framework has cut us: it stops, or we were too slow. Readers are cut too, and list anew.
	h.stop()
	h.stop = nil
	for r := range h.readers {
		h.forget(r)
	}
}

// forget ends a reader; mu is held.
func (h *Hub) forget(r *Reader) {
	delete(h.readers, r)
	close(r.c)
	if r.full {
		h.t.full.Add(-1)
	}
}
