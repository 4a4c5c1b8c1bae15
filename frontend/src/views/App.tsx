import { useEffect, useState } from "preact/hooks";
import type { Host } from "../hosts/host";
import type { DataSource, Index } from "../model";
import { useIndex, usePressing } from "../state/loading";
import { Actions, isOffering } from "./parts/Actions";
import { Guard } from "./parts/Card";
import { InvarianceAlone } from "./invariance/InvarianceAlone";
import { MountId } from "./parts/mountId";
import { Page, Skip } from "./parts/Page";
import { Dashboard } from "./Dashboard";
import { Failed, Loading, Nothing, Skeleton, Warnings } from "./parts/States";

export interface AppProps {
  readonly source: DataSource;
  readonly host: Host;
  readonly mountId: string;
}

function useTheme(host: Host) {
  const [theme, setTheme] = useState(host.theme.current);
  useEffect(() => host.theme.subscribe(() => setTheme(host.theme.current())), [host]);
  return theme;
}

export function App({ source, host, mountId }: AppProps) {
  const theme = useTheme(host);
  const { index, error, busy, reload } = useIndex(source, host);
  /** Null until the dashboard says whether it is waiting for something. */
  const [waiting, setWaiting] = useState<boolean | null>(null);
  const empty = index !== null && index.series.length === 0 && index.invariance.length === 0;
  const pressing = usePressing(source);
  const waits = index === null ? busy : !empty && waiting !== false;
  useEffect(() => {
    if (!waits) document.documentElement.dataset["bcReady"] = "true";
  }, [waits]);

  return (
    <MountId.Provider value={mountId}>
      <div class="bc-app" lang="en" data-theme={theme} data-host={host.kind} data-bc-busy={waits}>
        {/* A notebook has a main part and a title of its own. */}
        <Page isWhole={host.kind !== "notebook"}>
          {index !== null && !empty && <Skip />}
          {index === null ? (
            error !== null ? (
              <Failed what="The comparisons could not be loaded" error={error} onRetry={reload} />
            ) : (
              <Loading what="Loading the comparisons" />
            )
          ) : (
            <>
              {error !== null && (
                <Failed
                  what="This view could not be brought up to date, and shows what was loaded before"
                  error={error}
                  onRetry={reload}
                />
              )}
              <Actions actions={index.actions} progress={index.progress} {...{ pressing, empty }} />
              <Warnings warnings={index.warnings} />
              {empty ? (
                <Empty {...{ index, host, reload }} isOffered={pressing !== null && isOffering(index.actions)} />
              ) : (
                <Guard attempt={index}>
                  {index.series.length === 0 ? (
                    <InvarianceAlone {...{ source, host, index, reload, theme }} reloading={busy} onBusy={setWaiting} />
                  ) : (
                    <Dashboard {...{ source, host, index, reload, theme }} reloading={busy} onBusy={setWaiting} />
                  )}
                </Guard>
              )}
            </>
          )}
        </Page>
      </div>
    </MountId.Provider>
  );
}

function Empty({ index, host, reload, isOffered }: EmptyProps) {
  if (index.progress !== null) return <Skeleton what="Waiting for the first point" />;
  // How to begin is said beside the button.
  return isOffered ? null : <Nothing kind={host.kind} onReload={reload} />;
}

interface EmptyProps {
  readonly index: Index;
  readonly host: Host;
  readonly reload: () => void;
  readonly isOffered: boolean;
}
