package records

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/orlop/orlop/internal/store/metadata"
)

// top is the bucket of meta.db that holds everything of ours; containerd's
// buckets lie beside it.
var top = []byte("orlop")

var (
	keyItems = []byte("items")
	keyNames = []byte("names")
)

// A Migration brings the records of a bucket from one schema number to the
// next.
type Migration struct {
	// Number is the schema it leads to: 2 for the first migration, then one more
	// each. A bucket without migrations has schema 1.
	Number int
	// Reads is the oldest schema whose release can still read, and change, a
	// record after this migration. One that only adds keys leaves the number
	// of its predecessor (1 for the first); one that changes the meaning of a
	// key sets its own number, and no older release can go back.
	Reads int
	// Apply changes the record's keys in place. It sees every record once, may
	// see one again that an older release has saved meanwhile, and must
	// then give the same result.
	Apply func(record map[string]json.RawMessage) error
}

// BucketConfig describes the records of one bucket.
type BucketConfig struct {
	// Name is unique in the engine: "containers", "networks".
	Name string
	// Known lists the top-level keys that this release writes ([KeysOf]). A key of a
	// stored record that is not listed was written by another release and
	// is kept when the record is replaced.
	Known []string
	// Migrations, ascending by Number without gaps.
	Migrations []Migration
}

// schema is the number of the newest migration, and reads the oldest schema
// that can read what is written now.
func (c BucketConfig) schema() (number, reads int) {
	number, reads = 1, 1
	for _, m := range c.Migrations {
		number, reads = m.Number, m.Reads
	}
	return number, reads
}

// envelope is what lies in the file: the record and what a reader must know
// before it looks at it.
type envelope struct {
	Schema int             `json:"schema"`
	Reads  int             `json:"reads"`
	Data   json.RawMessage `json:"data"`
}

// Bucket is a set of JSON objects by key, each with its schema number. It is
// safe for concurrent use; every change is one durable transaction.
type Bucket struct {
	db     *metadata.DB
	cfg    BucketConfig
	number int
	reads  int
}

// OpenBucket makes the bucket if needed and migrates what an older release has
// written. It fails with ErrFailedPrecondition when a newer release has
// written records that this one cannot read; nothing is changed then.
func OpenBucket(ctx context.Context, db *metadata.DB, cfg BucketConfig) (*Bucket, error) {
	b := &Bucket{db: db, cfg: cfg}
	b.number, b.reads = cfg.schema()
	for i, m := range cfg.Migrations {
		if m.Number != i+2 || m.Reads < 1 || m.Reads > m.Number || m.Apply == nil {
			return nil, fmt.Errorf("open records %s: migration %d is not number %d", cfg.Name, m.Number, i+2)
		}
	}
	stale, missing := map[string][]byte{}, false
	err := db.View(ctx, func(_ context.Context, tx *bolt.Tx) error {
		items := b.items(tx)
		if items == nil {
			missing = true
			return nil
		}
		return items.ForEach(func(key, value []byte) error {
			// One that cannot be read is reported by Load; it is no reason not
			// to start.
			migrated, err := b.migrate(value)
			if errdefs.IsFailedPrecondition(err) {
				return fmt.Errorf("open records %s: %s: %w", cfg.Name, key, err)
			}
			if err == nil && migrated != nil {
				stale[string(key)] = migrated
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if !missing && len(stale) == 0 {
		return b, nil
	}
	return b, db.Update(ctx, func(_ context.Context, tx *bolt.Tx) error {
		items, err := b.create(tx)
		if err != nil {
			return err
		}
		for _, key := range slices.Sorted(maps.Keys(stale)) {
			if err := items.Put([]byte(key), stale[key]); err != nil {
				return fmt.Errorf("migrate records %s: %s: %w", cfg.Name, key, err)
			}
		}
		return nil
	})
}

// migrate returns the value after the migrations it lacks, nil when it lacks
// none.
func (b *Bucket) migrate(value []byte) ([]byte, error) {
	var env envelope
	if err := json.Unmarshal(value, &env); err != nil {
		return nil, fmt.Errorf("read record: %w: %w", err, errdefs.ErrDataLoss)
	}
	if env.Reads > b.number {
		return nil, fmt.Errorf("record has schema %d, this release reads up to %d: %w", env.Schema, b.number, errdefs.ErrFailedPrecondition)
	}
	if env.Schema >= b.number {
		return nil, nil
	}
	var record map[string]json.RawMessage
	if err := json.Unmarshal(env.Data, &record); err != nil {
		return nil, fmt.Errorf("read record: %w: %w", err, errdefs.ErrDataLoss)
	}
	for _, m := range b.cfg.Migrations {
		if m.Number <= env.Schema {
			continue
		}
		if err := m.Apply(record); err != nil {
			return nil, fmt.Errorf("migration %d: %w: %w", m.Number, err, errdefs.ErrDataLoss)
		}
	}
	data, err := marshal(record)
	if err != nil {
		return nil, err
	}
	return marshal(envelope{Schema: b.number, Reads: max(env.Reads, b.reads), Data: data})
}

func (b *Bucket) path() [][]byte { return [][]byte{top, []byte(b.cfg.Name)} }

// root is the bucket's own bucket; nil when it was never written.
func (b *Bucket) root(tx *bolt.Tx) *bolt.Bucket {
	bucket := tx.Bucket(b.path()[0])
	for _, name := range b.path()[1:] {
		if bucket == nil {
			return nil
		}
		bucket = bucket.Bucket(name)
	}
	return bucket
}

func (b *Bucket) items(tx *bolt.Tx) *bolt.Bucket {
	root := b.root(tx)
	if root == nil {
		return nil
	}
	return root.Bucket(keyItems)
}

func (b *Bucket) create(tx *bolt.Tx) (*bolt.Bucket, error) {
	bucket, err := tx.CreateBucketIfNotExists(top)
	for _, name := range append(b.path()[1:], keyItems) {
		if err != nil {
			break
		}
		bucket, err = bucket.CreateBucketIfNotExists(name)
	}
	if err != nil {
		return nil, fmt.Errorf("create records %s: %w", b.cfg.Name, err)
	}
	return bucket, nil
}

// sub is a bucket beside the items, made if needed.
func (b *Bucket) sub(tx *bolt.Tx, name []byte) (*bolt.Bucket, error) {
	if _, err := b.create(tx); err != nil {
		return nil, err
	}
	return b.root(tx).CreateBucketIfNotExists(name)
}

// Get returns the record of key. ErrNotFound.
func (b *Bucket) Get(ctx context.Context, key string) (json.RawMessage, error) {
	var data json.RawMessage
	err := b.db.View(ctx, func(_ context.Context, tx *bolt.Tx) (err error) {
		data, err = b.get(tx, key)
		return err
	})
	return data, err
}

func (b *Bucket) get(tx *bolt.Tx, key string) (json.RawMessage, error) {
	var value []byte
	if items := b.items(tx); items != nil {
		value = items.Get([]byte(key))
	}
	if value == nil {
		return nil, fmt.Errorf("%s record %s: %w", b.cfg.Name, key, errdefs.ErrNotFound)
	}
	return b.open(key, value)
}

// open returns the record inside a value; the bytes are the caller's.
func (b *Bucket) open(key string, value []byte) (json.RawMessage, error) {
	migrated, err := b.migrate(value)
	if err != nil {
		return nil, fmt.Errorf("%s record %s: %w", b.cfg.Name, key, err)
	}
	if migrated == nil {
		// The file's memory is only valid during the transaction.
		migrated = bytes.Clone(value)
	}
	var env envelope
	if err := json.Unmarshal(migrated, &env); err != nil {
		return nil, fmt.Errorf("%s record %s: %w: %w", b.cfg.Name, key, err, errdefs.ErrDataLoss)
	}
	return env.Data, nil
}

// Put makes or replaces the record of key; record must be a JSON object. Keys
// that another release wrote are kept.
func (b *Bucket) Put(ctx context.Context, key string, record json.RawMessage) error {
	return b.db.Update(ctx, func(_ context.Context, tx *bolt.Tx) error {
		return b.put(tx, key, record)
	})
}

func (b *Bucket) put(tx *bolt.Tx, key string, record json.RawMessage) error {
	items, err := b.create(tx)
	if err != nil {
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(record, &fields); err != nil {
		return fmt.Errorf("write %s record %s: %w: %w", b.cfg.Name, key, err, errdefs.ErrInvalidArgument)
	}
	reads := b.reads
	if old := items.Get([]byte(key)); old != nil {
		reads = max(reads, keepUnknown(fields, old, b.cfg.Known))
	}
	data, err := marshal(fields)
	if err != nil {
		return fmt.Errorf("write %s record %s: %w", b.cfg.Name, key, err)
	}
	value, err := marshal(envelope{Schema: b.number, Reads: reads, Data: data})
	if err != nil {
		return fmt.Errorf("write %s record %s: %w", b.cfg.Name, key, err)
	}
	if err := items.Put([]byte(key), value); err != nil {
		return fmt.Errorf("write %s record %s: %w", b.cfg.Name, key, err)
	}
	return nil
}

// keepUnknown adds the keys of the old record that this release does not know
// and returns the old record's Reads.
func keepUnknown(fields map[string]json.RawMessage, old []byte, known []string) int {
	var env envelope
	var before map[string]json.RawMessage
	if json.Unmarshal(old, &env) != nil || json.Unmarshal(env.Data, &before) != nil {
		return 0
	}
	for key, value := range before {
		if _, written := fields[key]; !written && !slices.Contains(known, key) {
			fields[key] = value
		}
	}
	return env.Reads
}

// Delete removes the record of key; one that is not there is no error.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	return b.db.Update(ctx, func(_ context.Context, tx *bolt.Tx) error {
		if items := b.items(tx); items != nil {
			return items.Delete([]byte(key))
		}
		return nil
	})
}

// ForEach calls fn with every record in the order of keys, until it returns an
// error. Records that cannot be read are returned as one joined error behind
// the others; they stay as they are. fn must not write.
func (b *Bucket) ForEach(ctx context.Context, fn func(key string, record json.RawMessage) error) error {
	var broken []error
	err := b.db.View(ctx, func(_ context.Context, tx *bolt.Tx) error {
		items := b.items(tx)
		if items == nil {
			return nil
		}
		return items.ForEach(func(key, value []byte) error {
			record, err := b.open(string(key), value)
			if err != nil {
				broken = append(broken, err)
				return nil
			}
			return fn(string(key), record)
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(broken...)
}

// marshal is json.Marshal that leaves <, > and & as they are: bytes that came
// from a client stay what they were.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// KeysOf lists the keys under which encoding/json writes the fields of the
// struct v; for BucketConfig.Known.
func KeysOf(v any) []string {
	var keys []string
	t := reflect.TypeOf(v)
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			keys = append(keys, KeysOf(reflect.Zero(f.Type).Interface())...)
		case !f.IsExported():
		case name == "":
			keys = append(keys, f.Name)
		default:
			keys = append(keys, name)
		}
	}
	return keys
}
