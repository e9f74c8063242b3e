package storagesource

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// damage is a way in which the clients "one" and "two" are damaged in storage. The index
// and the objects of before the last change of "one" are in the map old.
type damage struct {
	do func(t *testing.T, folder string, old map[string]string)
	// want is in the error.
	want string
	// all is set if nothing can be read, not only the shard of "one".
	all bool
	// unseen is set if a running node does not notice, because the index is the same.
	unseen bool
	// startsEmpty is set if a restart finds no clients.
	startsEmpty bool
}

var damages = map[string]damage{
	"shard cut in half": {do: func(t *testing.T, folder string, _ map[string]string) {
		edit(t, folder, objectOf(t, folder, "one"), func(text string) string { return text[:len(text)/2] })
	}, want: "whose hash is not that of its name; restore it from a backup", unseen: true},
	"empty shard": {do: func(t *testing.T, folder string, _ map[string]string) {
		edit(t, folder, objectOf(t, folder, "one"), func(string) string { return "" })
	}, want: "has 0 bytes whose hash is not that of its name", unseen: true},
	"shard that was edited": {do: func(t *testing.T, folder string, _ map[string]string) {
		edit(t, folder, objectOf(t, folder, "one"), func(text string) string { return strings.Replace(text, "new", "own", 1) })
	}, want: "whose hash is not that of its name", unseen: true},
	"shard missing": {do: func(t *testing.T, folder string, _ map[string]string) {
		remove(t, folder, objectOf(t, folder, "one"))
	}, want: "is missing; restore it from a backup of the same time as 'index.json'", unseen: true},
	"old index": {do: func(t *testing.T, folder string, old map[string]string) {
		edit(t, folder, indexName, func(string) string { return old[indexName] })
	}, want: "is missing; restore it from a backup of the same time as 'index.json'"},
	"line of another shard": {do: func(t *testing.T, folder string, _ map[string]string) {
		forge(t, folder, "one", record("two", "x")+"\n")
	}, want: "line 1: client 'two' belongs to shard "},
	"two lines of a client": {do: func(t *testing.T, folder string, _ map[string]string) {
		forge(t, folder, "one", record("one", "x")+"\n"+record("one", "y")+"\n")
	}, want: "line 2: client 'one' is not in order"},
	"line that is not a record": {do: func(t *testing.T, folder string, _ map[string]string) {
		forge(t, folder, "one", "x\n")
	}, want: "line 1: not a JSON object whose client_id is a string"},
	"index of garbage": {do: func(t *testing.T, folder string, _ map[string]string) {
		edit(t, folder, indexName, func(text string) string { return text[:len(text)/2] })
	}, want: "'mtls/partners/clients/index.json': it is not an index of clients (unexpected end of JSON input); restore it from a backup", all: true},
	"empty index": {do: func(t *testing.T, folder string, _ map[string]string) {
		edit(t, folder, indexName, func(text string) string { return "" })
	}, want: "it is not an index of clients", all: true},
	"another JSON object": {do: func(t *testing.T, folder string, _ map[string]string) {
		edit(t, folder, indexName, func(text string) string { return "{}" })
	}, want: "it is not an index of clients (format 0)", all: true},
	"index without shards": {do: func(t *testing.T, folder string, _ map[string]string) {
		edit(t, folder, indexName, func(text string) string { return `{"format":1}` })
	}, want: "has no member shards", all: true},
	"index of a later release": {do: func(t *testing.T, folder string, _ map[string]string) {
		edit(t, folder, indexName, func(text string) string { return strings.Replace(text, `"format":1`, `"format":2`, 1) })
	}, want: "its format 2 is that of a later release; update this Caddy", all: true},
	"index that leads elsewhere": {do: func(t *testing.T, folder string, _ map[string]string) {
		edit(t, folder, indexName, func(text string) string {
			return strings.ReplaceAll(text, objectOf(t, folder, "one"), "../keys/secret.json")
		})
	}, want: `has the object "../keys/secret.json", which is not the name of one`, all: true},
	"index missing": {do: func(t *testing.T, folder string, _ map[string]string) {
		remove(t, folder, indexName)
	}, want: "'mtls/partners/clients/index.json' is missing, but there are shards, such as '", all: true},
	"everything missing": {do: func(t *testing.T, folder string, _ map[string]string) {
		if err := os.RemoveAll(clientsFolder(folder)); err != nil {
			t.Fatal(err)
		}
	}, want: "and all shards have vanished; bring them back, or restart Caddy to go on without them", all: true, startsEmpty: true},
}

func edit(t *testing.T, folder, name string, change func(string) string) {
	t.Helper()
	path := filepath.Join(clientsFolder(folder), name)
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(change(string(text))), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, folder, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(clientsFolder(folder), name)); err != nil {
		t.Fatal(err)
	}
}

// forge stores a shard whose hash is right.
func forge(t *testing.T, folder, id, text string) {
	t.Helper()
	name := newObjectName(shardOf(id), 99, []byte(text))
	edit(t, folder, indexName, func(index string) string { return strings.ReplaceAll(index, objectOf(t, folder, id), name) })
	if err := os.WriteFile(filepath.Join(clientsFolder(folder), name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamageLosesNothing: what is damaged changes nothing that is in force, stops
// nothing else, and is never overwritten.
func TestDamageLosesNothing(t *testing.T) {
	for name, d := range damages {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			writer := start(t, folder)
			writer.must("two", "2")
			writer.must("one", "old")
			old := contents(t, folder)
			writer.must("one", "new")
			running := start(t, folder)
			whole := contents(t, folder)
			d.do(t, folder, old)
			damaged := contents(t, folder)

			running.look()
			if !d.unseen {
				running.notes(d.want)
			}
			running.has("one=new", "two=2")
			checkError(t, running.set("one", "overwritten"), d.want)
			running.has("one=new", "two=2")
			for name, text := range damaged {
				if contents(t, folder)[name] != text {
					t.Errorf("'%s' has changed", name)
				}
			}

			want := d.want
			if d.startsEmpty {
				want = ""
			}
			newNode(t, testenv.NewStorage(folder), false).load(want)
			skip := newNode(t, testenv.NewStorage(folder), true)
			if d.all {
				skip.load(want)
				skip.has()
				checkError(t, running.set("two", "overwritten"), d.want)
			} else {
				skip.load("")
				skip.has("two=2")
				skip.notes(d.want)
				running.must("two", "changed") // the rest is not affected
				running.has("one=new", "two=changed")
				skip.look()
				skip.has("two=changed")
				checkError(t, skip.set("one", "overwritten"), d.want)
			}

			restore(t, folder, whole)
			for _, n := range []*node{running, skip} {
				n.clock.Advance(retryInterval)
				n.look()
				n.notes("")
				n.has("one=new", "two=2")
			}
		})
	}
}

// restore brings a backup back.
func restore(t *testing.T, folder string, backup map[string]string) {
	t.Helper()
	if err := os.MkdirAll(clientsFolder(folder), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range backup {
		if err := os.WriteFile(filepath.Join(clientsFolder(folder), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOlderBackupCounts: if index and shards come from one backup, they are in force,
// and the log says that they are older.
func TestOlderBackupCounts(t *testing.T) {
	folder := t.TempDir()
	n := start(t, folder)
	n.must("one", "old")
	old := contents(t, folder)
	n.must("one", "new")
	n.must("two", "2")
	running := start(t, folder)
	restore(t, folder, old)
	running.look()
	running.has("one=old")
	entries := running.logs.FilterMessage("stored clients went back to an older revision").All()
	if len(entries) != 1 || entries[0].ContextMap()["revision"] != uint64(1) || entries[0].ContextMap()["previous"] != uint64(3) {
		t.Errorf("logged is %v", running.logs.All())
	}
	running.must("one", "newer")
	running.has("one=newer")
}

// TestManyDamagedShards: the error names a few.
func TestManyDamagedShards(t *testing.T) {
	folder := t.TempDir()
	all := func(yield func(clients.Entry, error) bool) {
		for i := range 50 {
			id := fmt.Sprint("client-", i)
			if !yield(clients.Entry{Record: []byte(record(id, "x"))}, nil) {
				return
			}
		}
	}
	if err := Fill(t.Context(), testenv.NewStorage(folder), "partners", all); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, testenv.NewStorage(folder), true)
	shards := 0
	for name := range contents(t, folder) {
		if name != indexName {
			shards++
			remove(t, folder, name)
		}
	}
	n.load("")
	_, err := n.sink.get()
	checkError(t, err, fmt.Sprintf("and %d more", shards-3))
	if got := strings.Count(err.Error(), "is missing"); got != 3 {
		t.Errorf("the error names %d", got)
	}
}

// FuzzIndex: an index that is accepted names only objects of clients, and says the same
// when it is written.
func FuzzIndex(f *testing.F) {
	x := &index{Format: formatVersion, Shards: map[string]shardEntry{}}
	f.Add(string(x.encode()))
	f.Add(string(x.with("0a3", shardEntry{newObjectName("0a3", 1, nil), 1, 2}).encode()))
	f.Add(`{"format":1,"revision":3,"shards":{"0a3":{"object":"../x"}}}`)
	f.Add(`{"format":2}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		x, err := parseIndex([]byte(text))
		if err != nil {
			return
		}
		for name, entry := range x.Shards {
			if filepath.Base(entry.Object) != entry.Object || !strings.HasPrefix(entry.Object, name+"-") {
				t.Errorf("shard %q has object %q", name, entry.Object)
			}
		}
		again, err := parseIndex(x.encode())
		if err != nil {
			t.Fatalf("%s: %v", x.encode(), err)
		}
		first, _ := json.Marshal(x)
		second, _ := json.Marshal(again)
		if string(first) != string(second) {
			t.Errorf("%s has become %s", first, second)
		}
	})
}

// FuzzShard: a shard that is accepted is written as it was read.
func FuzzShard(f *testing.F) {
	f.Add(record("one", "1") + "\n")
	f.Add("{\"client_name\":\"x\",\"client_id\":\"one\"}\n")
	f.Add("{\"client_id\":\"one\",\"client_id\":\"two\"}\n\n")
	f.Add("x")
	f.Fuzz(func(t *testing.T, text string) {
		lines, err := parseShard(newObjectName(shardOf("one"), 1, []byte(text)), []byte(text))
		if err == nil && string(encodeShard(lines)) != text && string(encodeShard(lines)) != text+"\n" {
			t.Errorf("%q has become %q", text, encodeShard(lines))
		}
		for _, l := range lines {
			if clients.CheckID(l.id) != nil {
				t.Errorf("%q has the client_id %q", l.text, l.id)
			}
		}
	})
}

// TestReloadWithoutStorage: a configuration that replaces another one does not begin with
// nothing where that one has clients, and writes nothing there.
func TestReloadWithoutStorage(t *testing.T) {
	folder := t.TempDir()
	n := newNode(t, testenv.NewStorage(folder), false)
	n.running = true
	const want = "and all shards have vanished"
	err := n.Load(t.Context(), n.sink)
	checkError(t, err, want)
	unavailable(t, err)
	n.look()
	n.notes(want)
	checkError(t, n.set("one", "1"), want)
	if texts := contents(t, folder); len(texts) > 0 {
		t.Errorf("stored are %v", texts)
	}
	start(t, folder).must("one", "back")
	n.look()
	n.notes("")
	n.has("one=back")
	n.must("two", "2")
	n.has("one=back", "two=2")
}
