package cluster_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Figures is an environment variable: the numbers of clients that the figures of
// docs/benchmarks.md are measured with.
const Figures = "MTLS_CLIENT_FIGURES"

// figures measures realms of several sizes. Caddy is a process of its own, and what is
// reported is its CPU time and its memory.
type figures struct {
	*cluster
	size int
}

// TestClientFigures measures what realms with many clients cost, for scripts/bench.
func TestClientFigures(t *testing.T) {
	sizes := os.Getenv(Figures)
	if sizes == "" {
		t.Skip("measures; scripts/bench runs it")
	}
	for text := range strings.SplitSeq(sizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, source := range []string{"file", "http", "storage", "postgres"} {
			t.Run(fmt.Sprintf("%s %d", source, size), func(t *testing.T) { measure(t, source, size) })
		}
	}
}

// records returns the records of a realm: half of its clients are known by their
// subject, half by a thumbprint, and each has a second credential. Those of the given
// edition differ from those of all others.
func (f *figures) records(edition int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, id := range []string{"stored", "changing"} {
			if !yield(f.record(id)) {
				return
			}
		}
		for i := range f.size - 2 {
			sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", i, edition))
			record := fmt.Sprintf(`{"client_id":"client-%d","scope":"use","x509_thumbprints":["%x"],"tls_client_auth_san_dns":"c%d.example.com"}`, i, sum, i)
			if i%2 == 0 {
				record = fmt.Sprintf(`{"client_id":"client-%d","scope":"use","tls_client_auth_subject_dn":"CN=client %d %d,O=Partner","tls_client_auth_san_dns":"c%d.example.com"}`, i, i, edition, i)
			}
			if !yield(record) {
				return
			}
		}
	}
}

// fill puts the records where a source finds them, and returns what clients_from says.
func (f *figures) fill(t *testing.T, source string) string {
	t.Helper()
	switch source {
	case "file":
		f.writeFile(t, 0)
		return `file "@DIR@/clients.jsonl"`
	case "http":
		f.writeFile(t, 0)
		return f.serveFile(t)
	case "storage":
		f.fillStorage(t)
		return "storage"
	}
	return "postgres " + f.fillPostgres(t)
}

// writeFile writes the file of clients.
func (f *figures) writeFile(t *testing.T, edition int) {
	t.Helper()
	file, err := os.Create(filepath.Join(f.Dir, "clients.new"))
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(file)
	for record := range f.records(edition) {
		fmt.Fprintln(out, record)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file.Name(), filepath.Join(f.Dir, "clients.jsonl")); err != nil {
		t.Fatal(err)
	}
}

// usage is what a process has used.
type usage struct {
	cpu       time.Duration
	rss, peak float64 // MB
}

// used reads what a node has used.
func used(t *testing.T, n *node) (u usage) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID()))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))
	for _, field := range fields[12:14] { // utime and stime, in hundredths of a second
		ticks, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for name, into := range map[string]*float64{"VmRSS": &u.rss, "VmHWM": &u.peak} {
		kb, _ := strconv.ParseFloat(regexp.MustCompile(name + `:\s+(\d+)`).FindStringSubmatch(string(status))[1], 64)
		*into = kb / 1000
	}
	return u
}

// measure measures a realm whose clients come from a source.
func measure(t *testing.T, source string, size int) {
	f := &figures{cluster: &cluster{Rig: rig.New(t), leaves: make(map[string]*testpki.Leaf)}, size: size}
	for _, name := range []string{"fixed", "stored", "changing"} {
		f.leaves[name] = f.SelfSigned(name)
	}
	f.fault(t, "")
	f.source = f.fill(t, source)
	for n := range 2 {
		config := strings.Replace(f.config("0s"), "\t\tclient fixed", "\t\ttrust_pool file \"@DIR@/clients-ca.pem\"\n\t\tclient fixed", 1)
		f.nodes = append(f.nodes, &node{Process: f.Process(t, fmt.Sprintf("node%d", n), os.Args[0], config, f.leaves["fixed"])})
		f.nodes[n].Env = []string{nodeEnv + "=1"}
	}
	a := f.nodes[0]
	begin := time.Now()
	a.Start()
	for !f.admitted(a, "stored") {
		if a.Exited() || time.Since(begin) > 10*time.Minute {
			t.Fatal("the node does not serve")
		}
		time.Sleep(5 * time.Millisecond)
	}
	wall, start := time.Since(begin), used(t, a)
	say := func(what, format string, args ...any) {
		fmt.Printf("CLIENTS | %d | %s | %s | %s |\n", size, source, what, fmt.Sprintf(format, args...))
	}
	say("start", "%.2f s, %.2f s CPU, %.0f MB resident, %.0f MB at most", wall.Seconds(), start.cpu.Seconds(), start.rss, start.peak)
	heap := f.heap(t, a)
	say("heap", "%.1f MB", heap/1e6)
	f.requests(t, say)
	say("status", "%.1f ms, %.1f ms for a search", f.status(t, a, ""), f.status(t, a, "?never=true&q=nobody"))
	switch source {
	case "file":
		f.replacement(t, say)
		return
	case "http": // its clients are replaced like those of a file
		return
	}
	f.nodes[1].Start()
	for begin := time.Now(); !f.admitted(f.nodes[1], "stored"); time.Sleep(5 * time.Millisecond) {
		if f.nodes[1].Exited() || time.Since(begin) > 10*time.Minute {
			t.Fatal("the second node does not serve")
		}
	}
	f.oneChange(t, say)
}

// status returns how long the status of a node takes, in milliseconds: the median of a few.
func (f *figures) status(t *testing.T, n *node, query string) float64 {
	t.Helper()
	took := make([]float64, 21)
	for i := range took {
		begin := time.Now()
		if status, text, err := n.Ask(http.MethodGet, "/mtls/status"+query, ""); err != nil || status != http.StatusOK {
			t.Fatal(status, text, err)
		}
		took[i] = float64(time.Since(begin).Microseconds()) / 1000
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// heap returns the bytes of the heap that are in use in a node, after a collection.
func (f *figures) heap(t *testing.T, n *node) float64 {
	t.Helper()
	for range 2 { // the first profile collects
		if status, _, err := n.Ask(http.MethodGet, "/debug/pprof/heap?gc=1", ""); err != nil || status != http.StatusOK {
			t.Fatal(status, err)
		}
	}
	_, text, err := n.Ask(http.MethodGet, "/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^go_memstats_heap_alloc_bytes (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("no heap in %.300s", text)
	}
	bytes, _ := strconv.ParseFloat(found[1], 64)
	return bytes
}

// requests measures the CPU time of a request of each kind, over one kept connection.
func (f *figures) requests(t *testing.T, say func(what, format string, args ...any)) {
	a, token := f.nodes[0], f.issue(t, f.nodes[0])
	caller := a.Connect("h1", f.leaves["stored"])
	defer caller.Close()
	for _, kind := range []struct {
		name string
		ask  func() error
	}{
		{"mtls_auth", func() error { return want(caller, http.MethodGet, "https://api.test/", "hello stored") }},
		{"token", func() error {
			return want(caller, http.MethodPost, "https://auth.test/connect/token", `"access_token":`, rig.Form("stored"))
		}},
		{"mtls_bearer", func() error {
			return want(caller, http.MethodGet, "https://other.test/", "hello stored", rig.Bearer(token))
		}},
	} {
		const count = 5000
		var before usage
		for n := range count + 500 {
			if n == 500 {
				before = used(t, a)
			}
			if err := kind.ask(); err != nil {
				t.Fatalf("%s: %v", kind.name, err)
			}
		}
		say(kind.name, "%.0f µs CPU", float64((used(t, a).cpu-before.cpu).Microseconds())/count)
	}
}

// quantiles describes durations.
func quantiles(all []time.Duration) string {
	slices.Sort(all)
	at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000 }
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms", at(0.5), at(0.99))
}

// oneChange measures a change of one client: how long it takes until it is in force
// where it was made, which is when the answer comes, and on the second node.
func (f *figures) oneChange(t *testing.T, say func(what, format string, args ...any)) {
	a, b := f.nodes[0], f.nodes[1]
	const local, remote = 200, 10
	var took, seen []time.Duration
	before := used(t, a)
	for n := range local {
		begin := time.Now()
		if status, text := a.disable(t, "changing", n%2 == 0); status != http.StatusOK {
			t.Fatal(status, text)
		}
		took = append(took, time.Since(begin))
	}
	say("change", "%s, %.2f ms CPU", quantiles(took), float64((used(t, a).cpu-before.cpu).Microseconds())/1000/local)
	f.await(t, b, "changing", true)
	for n := range remote {
		if status, text := a.disable(t, "changing", n%2 == 0); status != http.StatusOK {
			t.Fatal(status, text)
		}
		begin := time.Now()
		f.await(t, b, "changing", n%2 == 1)
		seen = append(seen, time.Since(begin))
	}
	say("second node", "%s", quantiles(seen))
}

// replacement measures requests while all clients are replaced.
func (f *figures) replacement(t *testing.T, say func(what, format string, args ...any)) {
	a := f.nodes[0]
	caller := a.Connect("h1", f.leaves["stored"])
	defer caller.Close()
	traffic := func(until func() bool) (all []time.Duration) {
		for !until() {
			begin := time.Now()
			if err := want(caller, http.MethodGet, "https://api.test/", "hello stored"); err != nil {
				t.Fatal(err)
			}
			all = append(all, time.Since(begin))
		}
		return all
	}
	for_ := func(d time.Duration) func() bool {
		end := time.Now().Add(d)
		return func() bool { return time.Now().After(end) }
	}
	traffic(for_(time.Second))
	usual := traffic(for_(5 * time.Second))
	f.writeFile(t, 1)
	before, lines, begin := used(t, a), strings.Count(a.Logged(), "client source in force"), time.Now()
	var took time.Duration
	checked := time.Now()
	during := traffic(func() bool {
		if time.Since(checked) > 50*time.Millisecond {
			checked = time.Now()
			if took == 0 && strings.Count(a.Logged(), "client source in force") > lines {
				took = time.Since(begin)
			}
		}
		return took > 0
	})
	after := used(t, a)
	say("usual", "%s", quantiles(usual))
	say("replaced", "%s in %.1f s, %.2f s CPU with the requests, %d requests, %.0f MB at most", quantiles(during), took.Seconds(), (after.cpu - before.cpu).Seconds(), len(during), after.peak)
}
