package csiplugin

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// locks lets one operation with an effect run per volume. A second one is told so (ABORTED), as CSI wants it.
type locks struct {
	mu   sync.Mutex
	held map[string]bool
}

func (l *locks) take(_ context.Context, id string) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[id] {
		return nil, status.Errorf(codes.Aborted, "another operation on volume %s is under way", id)
	}
	if l.held == nil {
		l.held = map[string]bool{}
	}
	l.held[id] = true
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, id)
	}, nil
}
