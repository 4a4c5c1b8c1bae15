import { count } from "../../layout/format";

export interface PagerProps {
  /** Counted from 0. */
  readonly page: number;
  readonly pages: number;
  readonly total: number;
  /** What is paged, in the plural: "classes". */
  readonly label: string;
  readonly onPage: (page: number) => void;
}

export function Pager({ page, pages, total, label, onPage }: PagerProps) {
  const last = Math.max(0, pages - 1);
  const shown = Math.min(Math.max(0, page), last);
  const turn = (to: number, sign: string, title: string) => (
    <button
      type="button"
      class="bc-pager-turn"
      title={title}
      aria-label={`${title} of ${label}`}
      disabled={to < 0 || to > last || to === shown}
      onClick={() => onPage(to)}
    >
      {sign}
    </button>
  );
  return (
    <div class="bc-pager" role="group" aria-label={`Pages of ${label}`}>
      <span class="bc-pager-total">
        {count(total)} {label}
      </span>
      {pages > 1 && (
        <span class="bc-pager-turns">
          {turn(0, "«", "First page")}
          {turn(shown - 1, "‹", "Previous page")}
          <span aria-live="polite">
            page {count(shown + 1)} of {count(pages)}
          </span>
          {turn(shown + 1, "›", "Next page")}
          {turn(last, "»", "Last page")}
        </span>
      )}
    </div>
  );
}
