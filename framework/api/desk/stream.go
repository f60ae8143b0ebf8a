package desk

import (
	"net/http"
	"time"
)

// Heartbeat is how often a stream says that it is there, FrameTime how long a reader may take for one frame before it is cut.
const (
	Heartbeat = 10 * time.Second
	FrameTime = 10 * time.Second
)

// Stream writes an answer that goes on, frame by frame. A reader that does not take a frame in time is cut.
type Stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// NewStream begins an answer of a type; its headers leave with the first frame.
func NewStream(w http.ResponseWriter, contentType string) *Stream {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // the request is read; the connection is watched for its end only
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Accel-Buffering", "no")
	return &Stream{w, rc}
}

// Write sends one frame; an error says that the reader has gone or is too slow.
func (s *Stream) Write(p []byte) error {
	_ = s.rc.SetWriteDeadline(time.Now().Add(FrameTime))
	if _, err := s.w.Write(p); err != nil {
		return err
	}
	return s.rc.Flush()
}
