package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/caddymtls/caddy-mtls-auth/internal/traffic"
)

// Traffic returns what the counters say about the decisions of each realm.
func Traffic() map[string]traffic.Counts {
	all := make(map[string]*traffic.Counts)
	of := func(labels map[string]string) *traffic.Counts {
		counts := all[labels["realm"]]
		if counts == nil {
			counts = &traffic.Counts{Refused: make(map[string]uint64), ReportOnly: make(map[string]uint64)}
			all[labels["realm"]] = counts
		}
		return counts
	}
	admitted := func(labels map[string]string, value uint64) {
		if labels["result"] == resultOK {
			of(labels).Admitted += value
		}
	}
	each(authentications, admitted)
	each(bearerRequests, admitted)
	each(tokensIssued, func(labels map[string]string, value uint64) { of(labels).Tokens += value })
	each(refusals, func(labels map[string]string, value uint64) {
		of(labels).Refused[labels["reason"]] += value
		if labels["report_only"] == "true" {
			of(labels).ReportOnly[labels["reason"]] += value
		}
	})
	counts := make(map[string]traffic.Counts, len(all))
	for realm, said := range all {
		counts[realm] = *said
	}
	return counts
}

// each calls a function with the labels and the value of each counter.
func each(counters prometheus.Collector, use func(labels map[string]string, value uint64)) {
	collected := make(chan prometheus.Metric)
	go func() {
		defer close(collected)
		counters.Collect(collected)
	}()
	for metric := range collected {
		var written dto.Metric
		if metric.Write(&written) != nil {
			continue
		}
		labels := make(map[string]string, len(written.GetLabel()))
		for _, label := range written.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		use(labels, uint64(written.GetCounter().GetValue()))
	}
}
