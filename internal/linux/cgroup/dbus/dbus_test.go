package dbus

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

// The complete library reads what this one writes.
func TestCallsAreWhatTheLibraryReads(t *testing.T) {
	args := new(Args).Text("orlop-x.scope").Text("replace").Bool(true).Properties([]Property{
		{"Slice", "system.slice"}, {"Delegate", true}, {"PIDs", []uint32{1, 2, 3}}, {"TasksMax", uint64(1) << 40},
		{"AllowedCPUs", []byte{0xff, 1}}, {"Number", uint32(7)}, {"Empty", ""},
	}).NoUnits()
	m, err := dbus.DecodeMessage(bytes.NewReader(call(77, "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "StartTransientUnit", args)))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.IsValid(); err != nil {
		t.Error(err)
	}
	if m.Serial() != 77 || m.Headers[dbus.FieldMember].Value() != "StartTransientUnit" || m.Headers[dbus.FieldSignature].String() != `@g "ssba(sv)a(sa(sv))"` {
		t.Errorf("%v", m)
	}
	v := func(x any) dbus.Variant { return dbus.MakeVariant(x) }
	want := []any{
		"orlop-x.scope", "replace", true,
		[][]any{
			{"Slice", v("system.slice")}, {"Delegate", v(true)}, {"PIDs", v([]uint32{1, 2, 3})}, {"TasksMax", v(uint64(1) << 40)},
			{"AllowedCPUs", v([]byte{0xff, 1})}, {"Number", v(uint32(7))}, {"Empty", v("")},
		},
		[][]any{},
	}
	if d := cmp.Diff(want, m.Body, cmp.AllowUnexported(dbus.Variant{}, dbus.Signature{})); d != "" {
		t.Error(d)
	}
}

// And this one reads what the library writes.
func TestMessagesOfTheLibrary(t *testing.T) {
	for _, in := range []*dbus.Message{
		{
			Type: dbus.TypeSignal,
			Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/a")), dbus.FieldInterface: dbus.MakeVariant("i.i"), dbus.FieldMember: dbus.MakeVariant("JobRemoved"),
				dbus.FieldSender: dbus.MakeVariant(":1.7"), dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(uint32(0), dbus.ObjectPath(""), "", "")),
			},
			Body: []any{uint32(5), dbus.ObjectPath("/job/5"), "unit", "done"},
		},
		{
			Type:    dbus.TypeError,
			Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(uint32(9)), dbus.FieldErrorName: dbus.MakeVariant("e.e"), dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(""))},
			Body:    []any{"what happened"},
		},
	} {
		var b bytes.Buffer
		if err := in.EncodeTo(&b, binary.LittleEndian); err != nil {
			t.Fatal(err)
		}
		m, err := parse(&b)
		if err != nil {
			t.Fatal(err)
		}
		d := m.Body()
		switch m.kind {
		case kindSignal:
			if m.Path != "/a" || m.Interface != "i.i" || m.Member != "JobRemoved" {
				t.Errorf("%+v", m)
			}
			if n, p, u, r := d.Uint32(), d.Text(), d.Text(), d.Text(); n != 5 || p != "/job/5" || u != "unit" || r != "done" || d.err != nil {
				t.Errorf("%d %s %s %s %v", n, p, u, r, d.err)
			}
		case kindError:
			if m.serial != 9 || m.errorName != "e.e" || d.Text() != "what happened" {
				t.Errorf("%+v", m)
			}
		}
		if d.Uint32() != 0 || d.Text() != "" || d.err == nil {
			t.Error("values were read behind the end")
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(call(1, "a.b", "/", "c.d", "E", new(Args).Text("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(bytes.NewReader(b))
		if err != nil {
			return
		}
		d := m.Body()
		d.Uint32()
		d.Text()
		d.Text()
	})
}
