package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Reservation is what an agent keeps for an instance, in GET /v1/reservations.
type Reservation struct {
	ID       string `json:"id"`
	App      string `json:"app"`
	Instance string `json:"instance"`
	Agent    string `json:"agent"`
	Hostname string `json:"hostname"`
	Role     string `json:"role,omitempty"`
	// State is asked, held, retained, left, releasing, or leftover: what an agent offers under our labels and no record explains.
	State string `json:"state"`
	// Retained says that no instance uses it: it stays until it is released, or an instance of that number is wanted again.
	Retained     bool          `json:"retained"`
	Since        time.Time     `json:"since,omitzero"`
	Volumes      []LocalVolume `json:"volumes"`
	Pending      []string      `json:"pending,omitempty"` // operations whose end is not known
	Error        string        `json:"error,omitempty"`
	RetryAt      time.Time     `json:"retryAt,omitzero"`
	MissingSince time.Time     `json:"missingSince,omitzero"` // of its agent
	// Reason says why it is as it is, or why it cannot be given back yet.
	Reason string `json:"reason,omitempty"`
}

// LocalVolume is a Mesos persistent volume of a reservation.
type LocalVolume struct {
	PersistenceID string `json:"persistenceId"`
	ContainerPath string `json:"containerPath,omitempty"`
	Type          string `json:"type,omitempty"`
	SizeMB        int64  `json:"sizeMB,omitempty"`
	Exists        bool   `json:"exists"`
	// NoResize says why its size does not follow the app's.
	NoResize string `json:"noResize,omitempty"`
}

// Reservations lists what agents keep for instances, of one app or of all.
func (c *Client) Reservations(ctx context.Context, app string) ([]Reservation, error) {
	var out struct {
		Reservations []Reservation `json:"reservations"`
	}
	path := "/v1/reservations"
	if app != "" {
		path += "?" + url.Values{"app": {app}}.Encode()
	}
	return out.Reservations, c.get(ctx, path, &out)
}

// Reservation gives one, by id; or by instance, when it has one only.
func (c *Client) Reservation(ctx context.Context, id string) (*Reservation, error) {
	out := &Reservation{}
	return out, c.get(ctx, "/v1/reservations/"+url.PathEscape(id), out)
}

// ReleaseReservation destroys its volumes with their data and gives everything back. forget only drops the record of one whose agent does not
// come back.
func (c *Client) ReleaseReservation(ctx context.Context, id string, forget bool) (*Result, error) {
	q := url.Values{}
	if forget {
		q.Set("forget", "true")
	}
	return c.command(ctx, http.MethodDelete, "/v1/reservations/"+url.PathEscape(id), q, nil)
}
