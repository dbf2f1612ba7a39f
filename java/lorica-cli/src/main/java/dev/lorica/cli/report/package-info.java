/**
 * What a run looked like, for people: {@link dev.lorica.cli.report.RunFolder} reads what a run left,
 * {@link dev.lorica.cli.report.ReportPage} makes a page of it, {@link dev.lorica.cli.report.ModelCard} the card that the
 * hub shows.
 */
package dev.lorica.cli.report;
