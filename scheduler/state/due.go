package state

import (
	"container/heap"
	"time"
)

var zeroTime time.Time

// dueKey names a value that waits for a time.
type dueKey struct {
	kind Kind
	id   string
}

type dueEntry struct {
	key dueKey
	at  time.Time
}

// dueHeap is a heap by time with positions, so that a value's time can change or go without a search.
type dueHeap struct {
	list []dueEntry
	pos  map[dueKey]int
}

func newDueHeap() dueHeap { return dueHeap{pos: map[dueKey]int{}} }

func (h *dueHeap) Len() int { return len(h.list) }
func (h *dueHeap) Less(i, j int) bool {
	a, b := h.list[i], h.list[j]
	if !a.at.Equal(b.at) {
		return a.at.Before(b.at)
	}
	if a.key.kind != b.key.kind {
		return a.key.kind < b.key.kind
	}
	return a.key.id < b.key.id
}
func (h *dueHeap) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.pos[h.list[i].key], h.pos[h.list[j].key] = i, j
}
func (h *dueHeap) Push(v any) {
	e := v.(dueEntry)
	h.pos[e.key] = len(h.list)
	h.list = append(h.list, e)
}
func (h *dueHeap) Pop() any {
	e := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	delete(h.pos, e.key)
	return e
}

// set gives key a time, or takes it out when at is zero.
func (h *dueHeap) set(key dueKey, at time.Time) {
	i, there := h.pos[key]
	switch {
	case at.IsZero() && there:
		heap.Remove(h, i)
	case at.IsZero():
	case there:
		h.list[i].at = at
		heap.Fix(h, i)
	default:
		heap.Push(h, dueEntry{key, at})
	}
}

// walk calls f for entries from the heap's top downwards. f tells whether to look at later ones below.
func (h *dueHeap) walk(i int, f func(dueEntry) bool) {
	if i < len(h.list) && f(h.list[i]) {
		h.walk(2*i+1, f)
		h.walk(2*i+2, f)
	}
}
