package embedded

import (
	"context"
	"strings"
	"sync"
)

// hub remembers which keys changed lately, for long polls.
type hub struct {
	mu    sync.Mutex
	rev   uint64 // revision of the newest commit
	start uint64 // changes with a revision above start are all in recent
	// recent are the newest changes, oldest first.
	recent []change
	wake   chan struct{} // closed and replaced at each commit
}

type change struct {
	rev uint64
	key string
}

const recentLimit = 8192

func newHub(rev uint64) *hub { return &hub{rev: rev, start: rev, wake: make(chan struct{})} }

func (h *hub) publish(rev uint64, keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range keys {
		h.recent = append(h.recent, change{rev, k})
	}
	if drop := len(h.recent) - recentLimit; drop > recentLimit/4 {
		// Cut between commits, so that start is exact.
		for drop < len(h.recent) && h.recent[drop].rev == h.recent[drop-1].rev {
			drop++
		}
		h.start = h.recent[drop-1].rev
		h.recent = append([]change(nil), h.recent[drop:]...)
	}
	h.rev = rev
	close(h.wake)
	h.wake = make(chan struct{})
}

// look tells whether a key under prefix may have changed after rev, and what to wait for when not.
func (h *hub) look(prefix string, rev uint64) (changed bool, now uint64, wake <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if rev < h.start || rev > h.rev {
		return true, h.rev, h.wake
	}
	for i := len(h.recent) - 1; i >= 0 && h.recent[i].rev > rev; i-- {
		if strings.HasPrefix(h.recent[i].key, prefix) {
			return true, h.rev, h.wake
		}
	}
	return false, h.rev, h.wake
}

// changes gives the keys under prefix that may have changed after rev, each once, and the revision to ask from next; all is true when
// that is not known and everything may have changed.
func (h *hub) changes(prefix string, rev uint64) (keys []string, now uint64, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if rev == 0 || rev < h.start || rev > h.rev {
		return nil, h.rev, true
	}
	seen := map[string]bool{}
	for i := len(h.recent) - 1; i >= 0 && h.recent[i].rev > rev; i-- {
		if k := h.recent[i].key; !seen[k] && strings.HasPrefix(k, prefix) {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	return keys, h.rev, false
}

// await blocks until something under prefix may have changed after rev, or until ctx ends or stop is closed, and gives the revision to ask from next.
func (h *hub) await(ctx context.Context, stop <-chan struct{}, prefix string, rev uint64) (changed bool, now uint64) {
	for {
		changed, now, wake := h.look(prefix, rev)
		if changed {
			return true, now
		}
		rev = now
		select {
		case <-wake:
		case <-ctx.Done():
			return false, now
		case <-stop:
			return false, now
		}
	}
}
