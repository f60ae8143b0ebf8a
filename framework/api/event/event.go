// Package event is Marathon's event stream: it tells the framework's changes in Marathon's words (Translate), and hands them to
// any number of readers (Hub), each of whom may fall behind by a bounded number of events.
package event

import (
	"encoding/json"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Event is one event, ready to be sent.
type Event struct {
	Type string
	// Data is the event's JSON on one line. Full is the same with whole groups in its plan (plan-format=full), nil when there is no plan.
	Data, Full []byte
}

// Frame prints an event as text/event-stream has it.
func (e *Event) Frame(full bool) []byte {
	data := e.Data
	if full && e.Full != nil {
		data = e.Full
	}
	out := make([]byte, 0, len(e.Type)+len(data)+24)
	out = append(out, "event: "...)
	out = append(out, e.Type...)
	out = append(out, "\r\ndata: "...)
	out = append(out, data...)
	return append(out, "\r\n\r\n"...)
}

// fields of an event besides its type and time.
type fields map[string]any

func build(kind string, at time.Time, f fields) Event {
	f["eventType"], f["timestamp"] = kind, desk.Stamp(at)
	return Event{Type: kind, Data: document.Marshal(f)}
}

// Posted tells that an app was changed by one request.
func Posted(at time.Time, clientIP, uri string, app json.RawMessage) Event {
	return build("api_post_event", at, fields{"clientIp": clientIP, "uri": uri, "appDefinition": app})
}

// The kinds of PodChanged.
const (
	PodCreated = "pod_created_event"
	PodUpdated = "pod_updated_event"
	PodDeleted = "pod_deleted_event"
)

// PodChanged tells that a pod was changed by a request.
func PodChanged(kind string, at time.Time, clientIP, uri string) Event {
	return build(kind, at, fields{"clientIp": clientIP, "uri": uri})
}

// GroupChanged tells that a change below a group was accepted.
func GroupChanged(at time.Time, group state.AppID, version string) Event {
	return build("group_change_success", at, fields{"groupId": group, "version": version})
}

// GroupFailed tells that a change below a group was refused by the framework.
func GroupFailed(at time.Time, group state.AppID, version, reason string) Event {
	return build("group_change_failed", at, fields{"groupId": group, "version": version, "reason": reason})
}

func attached(at time.Time, remote string) Event {
	return build("event_stream_attached", at, fields{"remoteAddress": remote})
}

func detached(at time.Time, remote string) Event {
	return build("event_stream_detached", at, fields{"remoteAddress": remote})
}
