package log

import "log/slog"

func SetDefault(logger *slog.Logger) {}
