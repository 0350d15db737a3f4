package cli

import (
	"io"
	"log/slog"
	"os"
)

// logger writes what daemons say; DAYFLY_LOG=debug says more.
func logger(w io.Writer) *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv("DAYFLY_LOG") == "debug" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
