package wire

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/mesos/mesos-go/api/v1/lib/encoding"
	"github.com/mesos/mesos-go/api/v1/lib/recordio"
)

// Stream is one subscriber's connection: a bounded queue of events that a handler goroutine writes
// out as RecordIO. Send never waits, so a subscriber that does not read cannot hold up the master:
// it is cut off when its queue is full.
//
// Events are encoded by the writing goroutine; a message that was sent must not change any more.
type Stream struct {
	// ID is the Mesos-Stream-Id.
	ID    string
	media encoding.MediaType

	mu    sync.Mutex
	queue []proto.Message
	max   int
	wake  chan struct{}
	done  chan struct{}
	ended bool // no more events are taken
	cut   bool // events still queued are not written
}

// NewStream makes a stream that holds at most max events not yet written.
func NewStream(id string, media encoding.MediaType, max int) *Stream {
	return &Stream{ID: id, media: media, max: max, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Send queues an event; it reports false when the stream has ended or overflowed, which ends it.
func (s *Stream) Send(m proto.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	if len(s.queue) >= s.max {
		s.ended, s.cut, s.queue = true, true, nil
		s.signal()
		return false
	}
	s.queue = append(s.queue, m)
	s.signal()
	return true
}

// End lets the queued events go out and then closes the stream.
func (s *Stream) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.signal()
}

// Done is closed when the connection is over, for whatever reason.
func (s *Stream) Done() <-chan struct{} { return s.done }

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Stream) take() (batch []proto.Message, ended, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch, s.queue = s.queue, nil
	return batch, s.ended, s.cut
}

// Serve writes the stream until it ends, the client goes away or ctx is done. writeLimit bounds one write.
func (s *Stream) Serve(ctx context.Context, w http.ResponseWriter, writeLimit time.Duration) error {
	defer close(s.done)
	defer s.End()
	w.Header().Set("Content-Type", string(s.media))
	w.Header().Set("Mesos-Stream-Id", s.ID)
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	out := recordio.NewWriter(w)
	for {
		batch, ended, cut := s.take()
		if cut {
			panic(http.ErrAbortHandler) // the peer sees a broken stream, not an end
		}
		if len(batch) > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(writeLimit))
			for _, m := range batch {
				b, err := Encode(s.media, m)
				if err != nil {
					return err
				}
				if err := out.WriteFrame(b); err != nil {
					return err
				}
			}
			if err := rc.Flush(); err != nil {
				return err
			}
			continue
		}
		if ended {
			return nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
