package wire

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
)

func event(text string) *scheduler.Event {
	return &scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{Message: text}}
}

func TestStreamEndsAfterItsEvents(t *testing.T) {
	s := NewStream("id", codecs.MediaTypeJSON, 10)
	s.Send(event("a"))
	s.Send(event("b"))
	s.End()
	if s.Send(event("late")) {
		t.Error("an event after the end was taken")
	}
	w := httptest.NewRecorder()
	if err := s.Serve(context.Background(), w, time.Second); err != nil {
		t.Fatal(err)
	}
	want := "40\n{\"type\":\"ERROR\",\"error\":{\"message\":\"a\"}}"
	if got := w.Body.String(); got != want+want[:len(want)-4]+"b\"}}" {
		t.Errorf("%q", got)
	}
	if w.Header().Get("Mesos-Stream-Id") != "id" || w.Header().Get("Content-Type") != "application/json" {
		t.Error(w.Header())
	}
	<-s.Done()
}

func TestStreamThatOverflowsIsCut(t *testing.T) {
	s := NewStream("id", codecs.MediaTypeJSON, 2)
	for _, x := range []bool{true, true, false, false} {
		if got := s.Send(event("x")); got != x {
			t.Errorf("sent %v, want %v", got, x)
		}
	}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("the stream ended as if it were complete")
		}
		<-s.Done()
	}()
	_ = s.Serve(context.Background(), httptest.NewRecorder(), time.Second)
}

func TestStreamEndsWithItsRequest(t *testing.T) {
	s := NewStream("id", codecs.MediaTypeProtobuf, 2)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := s.Serve(ctx, httptest.NewRecorder(), time.Second); err == nil {
		t.Error("ended without a reason")
	}
	if s.Send(event("x")) {
		t.Error("an event for nobody was taken")
	}
}
