package statuspage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

const (
	// chartMinutes is the width of a chart of the last hour, timelineDays that of the
	// time line, and chartHeight the height of both, in units of the drawing.
	chartMinutes = 60
	timelineDays = int(status.ExpiringWithin / (24 * time.Hour))
	chartHeight  = 20
	// minBar is the height of the smallest bar that can be seen.
	minBar = 1
)

// chart is a drawing of bars, with its text for those who cannot see it.
type chart struct {
	Label string
	Max   uint64
	Bars  []bar
}

type bar struct {
	X     int
	Y, H  float64
	Level string
	Title string
}

// place sets the height of a bar.
func (b *bar) place(value, most uint64) {
	b.H = max(minBar, chartHeight*float64(value)/float64(most))
	b.Y = chartHeight - b.H
}

// bars returns a chart of a series of the last hour, with a bar for each minute.
func bars(what string, series status.Series, now time.Time) chart {
	minutes := series.Minute[max(0, len(series.Minute)-chartMinutes):]
	c := chart{}
	if len(minutes) > 0 {
		c.Max = slices.Max(minutes)
	}
	c.Label = fmt.Sprintf("%s by the minute: %s in all, at most %s in a minute", shown(what), number(series.Total), number(c.Max))
	for i, value := range minutes {
		if value == 0 {
			continue
		}
		back := len(minutes) - 1 - i
		b := bar{X: chartMinutes - 1 - back, Title: now.Add(-time.Duration(back)*time.Minute).UTC().Format("15:04") + ": " + number(value)}
		b.place(value, c.Max)
		c.Bars = append(c.Bars, b)
	}
	return c
}

// Path returns the bars as the path of a drawing, which is short.
func (c chart) Path() string {
	var path strings.Builder
	for _, b := range c.Bars {
		fmt.Fprintf(&path, "M%d %dV%.1fh.8V%d", b.X, chartHeight, b.Y, chartHeight)
	}
	return path.String()
}

// line returns the time line of the certificates that expire, with a bar for each day.
func line(list []status.Expiring, now time.Time) chart {
	days := make([]uint64, timelineDays)
	var urgent, next int
	for i := range list {
		left := list[i].NotAfter.Sub(now)
		days[min(max(0, int(left/(24*time.Hour))), timelineDays-1)]++
		switch {
		case left <= soon:
			urgent++
		case left <= later:
			next++
		}
	}
	c := chart{Max: slices.Max(days)}
	c.Label = fmt.Sprintf("Time line of 90 days: %d within 14 days, %d within 30 days, %d later", urgent, next, len(list)-urgent-next)
	for day, value := range days {
		if value == 0 {
			continue
		}
		at := now.Add(time.Duration(day)*24*time.Hour + 12*time.Hour)
		b := bar{X: day, Level: levelOf(at, now), Title: at.UTC().Format(time.DateOnly) + ": " + number(value)}
		b.place(value, c.Max)
		c.Bars = append(c.Bars, b)
	}
	return c
}
