package framework

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// errAbdicated ends a time of leadership that somebody asked to end.
var errAbdicated = errors.New("the leadership was given up on request")

// standAside is for how many looks a leader that abdicated lets others go first.
const standAside = 6

// Abdicate gives the leadership up: what is under way is committed or forgotten as when the process stops, and tasks go on. Where others
// stand by, one of them leads next; otherwise this process leads again at once. It does nothing while this process does not lead.
func (f *Framework) Abdicate() {
	f.mu.RLock()
	end := f.end
	f.mu.RUnlock()
	if end != nil {
		end(errAbdicated)
	}
}

// lets notes how the time of leadership that begins can be ended; nil when it is over.
func (f *Framework) lets(end context.CancelCauseFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end = end
}

// abdicated gives up what the store knows of the leadership, and waits for others to take it. false when ctx ended.
func (f *Framework) abdicated(ctx context.Context) bool {
	f.log.Info("leadership given up on request")
	f.resign(errAbdicated.Error())
	f.c.Store.Resign()
	if !f.c.Standby {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(standAside * f.c.StandbyEvery):
		return true
	}
}

// whyEnded is why a time of leadership ended, where its context tells more than its error.
func whyEnded(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errAbdicated) && (err == nil || !fault.Is(err, fault.Internal)) {
		return errAbdicated
	}
	return err
}
