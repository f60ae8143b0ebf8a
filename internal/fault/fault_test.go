package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestClassOf(t *testing.T) {
	base := New(NotFound, "get volume %s", "db")
	for _, c := range []struct {
		err  error
		want Class
	}{
		{nil, ""}, {base, NotFound}, {fmt.Errorf("outer: %w", base), NotFound}, {Op(base, "mount"), NotFound},
		{Wrap(Unavailable, base, "mount"), Unavailable}, {errors.New("x"), Internal}, {fmt.Errorf("x: %w", context.DeadlineExceeded), Unknown},
	} {
		if got := ClassOf(c.err); got != c.want {
			t.Errorf("ClassOf(%v) = %q, want %q", c.err, got, c.want)
		}
	}
	if got := Op(base, "mount volume").Error(); got != "mount volume: get volume db" {
		t.Errorf("text = %q", got)
	}
	d := WithDetails(Invalid, "Object is not valid", Detail{Path: "/id", Errors: []string{"bad"}})
	if got := DetailsOf(Op(d, "post app")); len(got) != 1 || got[0].Path != "/id" {
		t.Errorf("DetailsOf = %v", got)
	}
}

func TestEveryClassHasStatusAndExitCode(t *testing.T) {
	for _, c := range []Class{Invalid, NotFound, Exists, Conflict, Denied, Unavailable, Unknown, Internal} {
		if HTTPStatus(c) < 400 {
			t.Errorf("%s: status %d", c, HTTPStatus(c))
		}
		if ExitCode(c) == ExitOK {
			t.Errorf("%s: exit code 0", c)
		}
	}
	if FromHTTPStatus(HTTPStatus(Unknown)) != Unknown {
		t.Error("unknown does not survive HTTP")
	}
}
