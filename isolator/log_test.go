package isolator

import (
	"os"

	"go.uber.org/zap/zapcore"
)

// logLevel is quiet unless HOLDFAST_TEST_LOG is set.
var logLevel = func() zapcore.Level {
	if os.Getenv("HOLDFAST_TEST_LOG") != "" {
		return zapcore.DebugLevel
	}
	return zapcore.FatalLevel
}()
