// Package telemetry sets OpenTelemetry up for a process: traces and metrics leave by the standard OTEL_* variables, and
// metrics can also be scraped. Call Setup once, early; everything else uses the otel package's globals.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
)

// Telemetry is what Setup made.
type Telemetry struct {
	// Metrics serves this process's metrics in Prometheus' text form.
	Metrics http.Handler
	tracer  *trace.TracerProvider
	meter   *metric.MeterProvider
}

// Setup installs tracer, meter and propagators for the service of that name (OTEL_SERVICE_NAME wins). Spans are exported
// if a standard variable names a destination, and to the given processors. Nothing is exported by default.
func Setup(ctx context.Context, service string, processors ...trace.SpanProcessor) (*Telemetry, error) {
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	res, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName(service), semconv.ServiceNamespace("skein")),
		resource.WithHost(), resource.WithProcessPID(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("telemetry resource: %w", err)
	}

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scrape, err := otelprom.New(otelprom.WithRegisterer(reg))
	if err != nil {
		return nil, fmt.Errorf("telemetry metrics: %w", err)
	}
	meterOpts := []metric.Option{metric.WithResource(res), metric.WithReader(scrape)}
	if wanted("METRICS") {
		reader, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, fmt.Errorf("telemetry metrics by OTEL_*: %w", err)
		}
		meterOpts = append(meterOpts, metric.WithReader(reader))
	}
	t := &Telemetry{
		Metrics: promhttp.HandlerFor(reg, promhttp.HandlerOpts{}),
		meter:   metric.NewMeterProvider(meterOpts...),
	}
	otel.SetMeterProvider(t.meter)

	if wanted("TRACES") {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("telemetry traces by OTEL_*: %w", err)
		}
		processors = append(processors, trace.NewBatchSpanProcessor(exporter))
	}
	if len(processors) > 0 { // else the no-op provider stays: a span nobody reads should cost nothing
		opts := []trace.TracerProviderOption{trace.WithResource(res)}
		for _, p := range processors {
			opts = append(opts, trace.WithSpanProcessor(p))
		}
		t.tracer = trace.NewTracerProvider(opts...)
		otel.SetTracerProvider(t.tracer)
	}
	return t, nil
}

// wanted reports whether a standard variable asks for export of that signal.
func wanted(signal string) bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return false
	}
	if e := os.Getenv("OTEL_" + signal + "_EXPORTER"); e != "" {
		return e != "none"
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

// Shutdown sends what is pending; ctx bounds how long it tries.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	err := t.meter.Shutdown(ctx)
	if t.tracer != nil {
		err = errors.Join(err, t.tracer.Shutdown(ctx))
	}
	return err
}
