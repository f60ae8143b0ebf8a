package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// PauseInstance stops an instance and starts an idle command in its place, with the same volumes on the same agent.
func (c *Client) PauseInstance(ctx context.Context, id string) (*Result, error) {
	return c.command(ctx, http.MethodPost, "/v1/instances/"+url.PathEscape(id)+"/pause", nil, nil)
}

// ResumeInstance ends a pause: the instance runs its app again.
func (c *Client) ResumeInstance(ctx context.Context, id string) (*Result, error) {
	return c.command(ctx, http.MethodPost, "/v1/instances/"+url.PathEscape(id)+"/resume", nil, nil)
}

// ReplaceInstance gives an instance a new run elsewhere. discard allows that local volumes are given up with their data.
func (c *Client) ReplaceInstance(ctx context.Context, id string, discard bool) (*Result, error) {
	q := url.Values{}
	if discard {
		q.Set("discard", "true")
	}
	return c.command(ctx, http.MethodPost, "/v1/instances/"+url.PathEscape(id)+"/replace", q, nil)
}

// PauseDeployment keeps a deployment from going on; what it began goes on.
func (c *Client) PauseDeployment(ctx context.Context, id string) (*Result, error) {
	return c.command(ctx, http.MethodPost, "/v1/deployments/"+url.PathEscape(id)+"/pause", nil, nil)
}

// ResumeDeployment lets a paused deployment go on.
func (c *Client) ResumeDeployment(ctx context.Context, id string) (*Result, error) {
	return c.command(ctx, http.MethodPost, "/v1/deployments/"+url.PathEscape(id)+"/resume", nil, nil)
}

// Versions lists the versions of an app's definition, newest first.
func (c *Client) Versions(ctx context.Context, id string) ([]string, error) {
	var out struct {
		Versions []string `json:"versions"`
	}
	return out.Versions, c.get(ctx, "/v2/apps/"+escapeID(id)+"/versions", &out)
}

// Rollback puts an app back to an earlier version. dry only says what would be done.
func (c *Client) Rollback(ctx context.Context, id, version string, force, dry bool) (*Result, error) {
	body, err := json.Marshal(map[string]string{"version": version})
	if err != nil {
		return nil, err
	}
	return c.command(ctx, http.MethodPatch, "/v2/apps/"+escapeID(id), dryQuery(force, dry), body)
}

// PutGroup creates or updates a group with everything in it from its Marathon JSON. dry only says what would be done.
func (c *Client) PutGroup(ctx context.Context, id string, group json.RawMessage, force, dry bool) (*Result, error) {
	return c.command(ctx, http.MethodPut, "/v2/groups/"+escapeID(id), dryQuery(force, dry), group)
}

// RemoveGroup stops and removes everything in a group. Volumes stay unless wipe.
func (c *Client) RemoveGroup(ctx context.Context, id string, force, wipe bool) (*Result, error) {
	q := forceQuery(force)
	if wipe {
		q.Set("wipe", "true")
	}
	return c.command(ctx, http.MethodDelete, "/v2/groups/"+escapeID(id), q, nil)
}

func dryQuery(force, dry bool) url.Values {
	q := forceQuery(force)
	if dry {
		q.Set("dryRun", strconv.FormatBool(dry))
	}
	return q
}
