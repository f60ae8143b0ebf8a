package v2

import (
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/event"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// events sends what happens as it happens: ?event_type= (repeatable) chooses, ?plan-format=full prints whole groups in plans.
func (s *api) events(w http.ResponseWriter, r *http.Request) {
	if accept := r.Header.Get("Accept"); accept != "" && !strings.Contains(accept, "text/event-stream") && !strings.Contains(accept, "*/*") && !strings.Contains(accept, "text/*") {
		s.Message(w, r, http.StatusMethodNotAllowed, "Method Not Allowed: an event stream needs Accept: text/event-stream")
		return
	}
	q := r.URL.Query()
	full := strings.EqualFold(q.Get("plan-format"), "full")
	reader := s.hub.Attach(r.RemoteAddr, q["event_type"], full)
	if reader == nil {
		s.Fail(w, r, fault.New(fault.Unavailable, "%d event streams are open, which is the limit", event.MaxReaders))
		return
	}
	defer reader.Detach()
	out := desk.NewStream(w, "text/event-stream;charset=utf-8")
	if out.Write(nil) != nil {
		return
	}
	beat := time.NewTicker(desk.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			if out.Write([]byte("\r\n")) != nil {
				return
			}
		case e, ok := <-reader.Events():
			if !ok || out.Write(e.Frame(full)) != nil {
				return
			}
		}
	}
}

// posted tells of a change of one app by a request.
func (s *api) posted(r *http.Request, c *change, version string) {
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		ip = r.RemoteAddr
	}
	s.hub.Publish(event.Posted(s.Now(), ip, r.URL.RequestURI(), c.print(version, nil)))
	s.groupChanged(picture.Parent(c.put.Def.App), version)
}

// groupFailed tells that a change below a group was refused: a deployment is in the way, or the change cannot be.
func (s *api) groupFailed(group state.AppID, err error) {
	s.hub.Publish(event.GroupFailed(s.Now(), group, desk.Stamp(s.Now()), err.Error()))
}

// groupChanged tells that a change below a group was accepted.
func (s *api) groupChanged(group state.AppID, version string) {
	s.hub.Publish(event.GroupChanged(s.Now(), group, version))
}
