package configs

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// field is one leaf of a configuration.
type field struct {
	key   string // dotted, as in log.level
	help  string
	value reflect.Value
}

// fields lists the leaves of the struct that cfg points to, in their order.
func fields(cfg any) []field { return leaves("", reflect.ValueOf(cfg).Elem()) }

func leaves(prefix string, v reflect.Value) (all []field) {
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		key := prefix + tag.Get("yaml")
		if f := v.Field(i); f.Kind() == reflect.Struct {
			all = append(all, leaves(key+".", f)...)
		} else {
			all = append(all, field{key, tag.Get("help"), f})
		}
	}
	return all
}

// env is the variable that overrules the file.
func (f field) env() string { return "DROVER_" + strings.ToUpper(strings.ReplaceAll(f.key, ".", "_")) }

// flag is the name of the flag that overrules both.
func (f field) flag() string { return strings.NewReplacer(".", "-", "_", "-").Replace(f.key) }

// set gives the leaf a value from a file (scalars as text, or a list) or from a flag or the environment (all as text).
func (f field) set(v any) error {
	if list, ok := v.([]string); ok {
		if f.value.Kind() != reflect.Slice {
			return fmt.Errorf("a list stands where one value should")
		}
		f.value.Set(reflect.ValueOf(list))
		return nil
	}
	text := fmt.Sprint(v)
	switch f.value.Interface().(type) {
	case string:
		f.value.SetString(text)
	case []string:
		list := []string{}
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		f.value.Set(reflect.ValueOf(list))
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		f.value.SetInt(int64(n))
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 300ms or 5m", text)
		}
		f.value.SetInt(int64(d))
	case Size:
		s, err := ParseSize(text)
		if err != nil {
			return err
		}
		f.value.SetInt(int64(s))
	default:
		return fmt.Errorf("no value can be a %s", f.value.Type())
	}
	return nil
}

// kind is how help names the leaf's type.
func (f field) kind() string {
	switch f.value.Interface().(type) {
	case []string:
		return "list"
	case int:
		return "number"
	case time.Duration:
		return "duration"
	case Size:
		return "size"
	}
	return "text"
}
