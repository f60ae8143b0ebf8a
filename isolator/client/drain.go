package client

import "context"

// DrainRequest asks the isolator to take no more mounts and to give everything back.
type DrainRequest struct {
	StopTasks bool `json:"stopTasks,omitempty"` // do not wait for the users of volumes: stop them
	Resume    bool `json:"resume,omitempty"`    // the reverse: take mounts again
	// WaitSeconds is how long users are waited for; 0 as long as the caller waits.
	WaitSeconds int `json:"waitSeconds,omitempty"`
}

// Drain waits until the node is empty or ctx ends; the error then names what is left, and the node goes on taking no mounts. Denied for
// others than root and the isolator's own user.
func (c *Client) Drain(ctx context.Context, r DrainRequest) error {
	return c.call(ctx, "POST", "/v1/drain", r, nil)
}
