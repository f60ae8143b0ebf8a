package v1

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

const (
	// logPause is how often a log that is followed is looked at.
	logPause = 400 * time.Millisecond
)

func (s *api) events(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	notices := s.Core.Events(ctx)
	out := desk.NewStream(w, "text/event-stream; charset=utf-8")
	if out.Write([]byte(": holdfast\r\n\r\n")) != nil {
		return
	}
	beat := time.NewTicker(desk.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			if out.Write([]byte("\r\n")) != nil {
				return
			}
		case n, ok := <-notices:
			if ok && (n.Session != nil || n.Strange != nil || n.Check != nil) {
				continue // told on /v2 only
			}
			// A closed channel says that this reader was too slow, or that the framework stops: the client lists anew.
			if !ok || out.Write(frame(n)) != nil {
				return
			}
		}
	}
}

func frame(n framework.Notice) []byte {
	e := client.Event{Type: n.Type, ID: n.ID, Gone: n.Gone}
	if n.Instance != nil {
		i := show.Run(n.Instance)
		e.Instance = &i
	}
	if n.Deployment != nil {
		d := show.Deployment(n.Deployment)
		e.Deployment = &d
	}
	if n.Reserved != nil {
		r := show.ReservationRecord(n.Reserved)
		e.Reservation = &r
	}
	out := append([]byte("event: "+n.Type+"\r\ndata: "), document.Marshal(e)...)
	return append(out, "\r\n\r\n"...)
}

// logs sends a file of an instance's sandbox from an offset (negative: from the end), and with follow what comes after, over relaunches.
func (s *api) logs(w http.ResponseWriter, r *http.Request) {
	id := instanceID(r)
	q := r.URL.Query()
	file := q.Get("file")
	if file == "" {
		file = "stdout"
	}
	if len(file) > 1024 || strings.HasPrefix(file, "/") || hasDots(file) {
		s.Fail(w, r, fault.New(fault.Invalid, "file must be a relative path in the sandbox without '..'"))
		return
	}
	offset := int64(0)
	if text := q.Get("offset"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			s.Fail(w, r, fault.New(fault.Invalid, "offset must be a number of bytes"))
			return
		}
		offset = n
	}
	l := &logReader{api: s, id: id, file: file, follow: desk.Yes(r, "follow", false)}
	if err := l.start(r.Context(), offset); err != nil {
		s.Fail(w, r, err)
		return
	}
	l.copy(r.Context(), desk.NewStream(w, "text/plain; charset=utf-8"))
}

func hasDots(path string) bool {
	for _, s := range strings.Split(path, "/") {
		if s == ".." {
			return true
		}
	}
	return false
}

// logReader reads on in a file whose instance may be relaunched meanwhile.
type logReader struct {
	*api
	id     state.InstanceID
	file   string
	follow bool
	offset int64
	task   state.TaskID
}

// start finds the offset to begin at, and whether there is anything to read.
func (l *logReader) start(ctx context.Context, offset int64) error {
	var err error
	l.Core.View(func(st *state.State) { _, err = findInstance(st, l.id) })
	if err != nil {
		return err
	}
	l.task = l.current()
	size, err := l.size(ctx)
	if l.follow && fault.Is(err, fault.NotFound) {
		return nil // it may come yet
	}
	if err != nil {
		return err
	}
	l.offset = offset
	if offset < 0 {
		l.offset = max(0, size+offset)
	}
	return nil
}

func (l *logReader) size(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, desk.AnswerTime)
	defer cancel()
	_, size, err := l.Core.ReadLog(ctx, l.id, l.file, -1)
	return size, err
}

// current is the task whose sandbox is read; "" when there is none.
func (l *logReader) current() (task state.TaskID) {
	l.Core.View(func(st *state.State) {
		if i := st.Instances[l.id]; i != nil && i.Run != nil {
			task = i.Run.Task
		}
	})
	return task
}

func (l *logReader) copy(ctx context.Context, out *desk.Stream) {
	if out.Write(nil) != nil {
		return
	}
	for ctx.Err() == nil {
		data, err := l.read(ctx)
		if len(data) > 0 {
			if out.Write(data) != nil {
				return
			}
			continue
		}
		if !l.follow || err != nil && !passing(err) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(logPause):
		}
	}
}

// read gives what there is at the offset, and moves on. A new run writes a new file, which is read from its beginning: an offset
// of the old one must not be used on it, so what was read while the run changed is read again.
func (l *logReader) read(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, desk.AnswerTime)
	defer cancel()
	if task := l.current(); task != l.task && task != "" {
		l.task, l.offset = task, 0
	}
	data, next, err := l.Core.ReadLog(ctx, l.id, l.file, l.offset)
	if task := l.current(); task != l.task && task != "" {
		return nil, nil
	}
	if err == nil {
		l.offset = next
	}
	return data, err
}

// passing tells whether a log that cannot be read now may be readable later: between two runs, or while the agent is away.
func passing(err error) bool {
	return fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Unknown)
}
