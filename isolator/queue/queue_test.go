package queue_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/queue"
)

var (
	one = volume.Ref{Driver: "d", Name: "one"}
	two = volume.Ref{Driver: "d", Name: "two"}
	bg  = context.Background()
)

func TestOrder(t *testing.T) {
	q := queue.New(bg)
	var inside, calls atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, _ = q.Do(bg, one, "x", "", func(context.Context) (string, error) {
				if inside.Add(1) != 1 {
					t.Error("two at once")
				}
				time.Sleep(time.Millisecond)
				inside.Add(-1)
				calls.Add(1)
				return "", nil
			})
		}()
	}
	wg.Wait()
	if calls.Load() != 20 {
		t.Errorf("%d calls", calls.Load())
	}
}

func TestJoinAndLeave(t *testing.T) {
	q := queue.New(bg)
	gate := make(chan struct{})
	var calls atomic.Int32
	slow := func(context.Context) (string, error) { calls.Add(1); <-gate; return "done", nil }
	early, cancel := context.WithTimeout(bg, 10*time.Millisecond)
	defer cancel()
	if _, err := q.Do(early, one, "mount", "k", slow); !fault.Is(err, fault.Unknown) {
		t.Errorf("the caller went: %v", err)
	}
	if out, err := q.Do(bg, two, "mount", "k", func(context.Context) (string, error) { return "two", nil }); err != nil || out != "two" {
		t.Errorf("another volume: %s %v", out, err)
	}
	if d := q.Doing(one); len(d) != 1 || d[0] != "mount" {
		t.Errorf("doing %v", d)
	}
	time.AfterFunc(10*time.Millisecond, func() { close(gate) })
	if out, err := q.Do(bg, one, "mount", "k", slow); err != nil || out != "done" || calls.Load() != 1 {
		t.Errorf("joined: %s %v, %d calls", out, err, calls.Load())
	}
}

func TestUrgentAndClose(t *testing.T) {
	life, end := context.WithCancel(bg)
	q := queue.New(life)
	got := make(chan bool, 1)
	waiting := make(chan struct{})
	go func() {
		_, _ = q.Do(bg, one, "unmount", "", func(ctx context.Context) (string, error) {
			close(waiting)
			for !q.Urgent(one) && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			got <- ctx.Err() == nil
			return "", nil
		})
	}()
	<-waiting
	if _, err := q.DoUrgently(bg, one, "fence", "", func(context.Context) (string, error) { return "", nil }); err != nil || !<-got {
		t.Errorf("urgent: %v", err)
	}
	if q.Urgent(one) {
		t.Error("still urgent")
	}
	end()
	q.Close()
	if _, err := q.Do(bg, one, "x", "", nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("closed: %v", err)
	}
}
