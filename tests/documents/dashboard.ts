// What Grafana's own types say of the dashboard that the hub prints, which a test puts into the place of the last line.
import type {Dashboard, DataQuery, DataSourceRef, FieldConfig, Panel, RowPanel} from '@grafana/schema';
import type {Options as Stat} from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {
  FieldConfig as Lines,
  Options as Series,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** The same in JSON, where an enum is the text or the number that it stands for; what has a default may be left out. */
type Json<T> = T extends string ? `${T}` : T extends object ? {[K in keyof T]: Json<T[K]>} : T;
type Some<T> = {[K in keyof T]?: T[K] extends object | undefined ? Some<T[K]> : T[K]};

/** What its data source for Prometheus is asked. */
type Query = DataQuery & {datasource: DataSourceRef; expr: string; legendFormat?: string; instant?: boolean; range?: boolean};

type Drawn<Type extends string, Options, Custom> = Json<Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'>> & {
  type: Type;
  targets: Json<Query>[];
  options: Some<Json<Options>>;
  fieldConfig: {defaults: Some<Json<Omit<FieldConfig, 'custom'>>> & {custom?: Some<Json<Custom>>}; overrides: []};
};
type Panels = (Drawn<'stat', Stat, never> | Drawn<'timeseries', Series, Lines> | Some<Json<RowPanel>> & {type: 'row'})[];

export const dashboard: Json<Omit<Dashboard, 'panels'>> & {panels: Panels} =
