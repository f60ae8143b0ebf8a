package docker

import (
	"errors"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// ClassOfWords lets tests ask what a plugin's words are taken for.
func ClassOfWords(method, text string) fault.Class { return (&pluginError{text}).classify(method) }

func asError(err error, target **pluginError) bool { return errors.As(err, target) }
