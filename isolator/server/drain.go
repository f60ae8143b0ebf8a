package server

import (
	"context"
	"os"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// drain empties the node for as long as its caller waits. Who may open the socket may end one use of one volume; ending all of them, and stopping tasks, is
// for root and for the isolator's own user.
func (s *Server) drain(ctx context.Context, in client.DrainRequest) (struct{}, error) {
	if p := callerOf(ctx); p.UID != 0 && p.UID != os.Geteuid() {
		return struct{}{}, fault.New(fault.Denied, "drain: user %d is neither root nor the isolator's", p.UID)
	}
	if in.Resume {
		s.service.Resume()
		return struct{}{}, nil
	}
	if in.WaitSeconds > 0 {
		limit, cancel := context.WithTimeout(ctx, time.Duration(in.WaitSeconds)*time.Second)
		defer cancel()
		ctx = limit
	}
	return struct{}{}, s.service.Empty(ctx, in.StopTasks)
}
