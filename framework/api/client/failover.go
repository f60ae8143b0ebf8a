package client

import (
	"context"
	"net/url"
	"time"
)

// Failover is how an instance got, or gets, from a lost run to one that is up again. A time that is zero has not come, or was not needed.
type Failover struct {
	Instance string `json:"instance"`
	App      string `json:"app"`
	// The run that was lost.
	Task     string `json:"task"`
	Node     string `json:"node,omitempty"`
	Hostname string `json:"hostname"`
	Why      string `json:"why,omitempty"`

	LostAt    time.Time `json:"lostAt"`
	RevokedAt time.Time `json:"revokedAt,omitzero"` // its claims were asked back
	// DeadAt is when the node's lease was declared over; FreeBy, while that is waited for, when it is over at the latest.
	DeadAt  time.Time `json:"deadAt,omitzero"`
	FreeBy  time.Time `json:"freeBy,omitzero"`
	FreeAt  time.Time `json:"freeAt,omitzero"`   // its claims were free
	FreedBy string    `json:"freedBy,omitempty"` // L3: the node gave them back; L4: its lease ran out; L7: an operator's word
	// The next run.
	NextTask     string    `json:"nextTask,omitempty"`
	NextHostname string    `json:"nextHostname,omitempty"`
	Attempts     int       `json:"attempts,omitempty"`
	OfferedAt    time.Time `json:"offeredAt,omitzero"`
	LaunchedAt   time.Time `json:"launchedAt,omitzero"`
	HeldAt       time.Time `json:"heldAt,omitzero"` // its node took the claim and mounted (that node's clock)
	RunningAt    time.Time `json:"runningAt,omitzero"`
	UpAt         time.Time `json:"upAt,omitzero"`
	// End is moved, returned, lost-again, failed or stopped; "" while it goes on.
	End   string    `json:"end,omitempty"`
	EndAt time.Time `json:"endAt,omitzero"`
	// Seconds is how long it took, or has taken so far.
	Seconds float64 `json:"seconds"`
	// Waits says what is waited for while it goes on.
	Waits string `json:"waits,omitempty"`
}

// Failovers lists the latest failovers of an app ("" for all), newest first.
func (c *Client) Failovers(ctx context.Context, app string) ([]Failover, error) {
	path := "/v1/failovers"
	if app != "" {
		path += "?app=" + url.QueryEscape(app)
	}
	var out struct {
		Failovers []Failover `json:"failovers"`
	}
	return out.Failovers, c.get(ctx, path, &out)
}
