import { useContext, useEffect, useId, useState } from "preact/hooks";
import { MountId } from "./mountId";

export interface ClassPickerProps {
  readonly label: string;
  readonly labels: readonly string[];
  readonly value: number | null;
  readonly onPick: (index: number | null) => void;
}

/** A menu of more classes than this is slower than typing. */
const MENU_LIMIT = 50;

export function ClassPicker({ label, labels, value, onPick }: ClassPickerProps) {
  if (labels.length > MENU_LIMIT) return <ClassField label={label} labels={labels} value={value} onPick={onPick} />;
  return (
    <label class="bc-tool">
      <span class="bc-tool-label">{label}</span>
      <select
        value={value ?? ""}
        onChange={({ currentTarget: { value: chosen } }) => onPick(chosen === "" ? null : Number(chosen))}
      >
        <option value="">any</option>
        {labels.map((name, index) => (
          <option key={index} value={index}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

function ClassField({ label, labels, value, onPick }: ClassPickerProps) {
  const id = `${useContext(MountId)}${useId()}`;
  const chosen = value === null ? "" : (labels[value] ?? "");
  const [typed, setTyped] = useState(chosen);
  const [listed, setListed] = useState(false);
  useEffect(() => setTyped(chosen), [chosen]);
  const take = (text: string) => {
    setTyped(text);
    if (text === "") onPick(null);
    const index = labels.indexOf(text);
    if (index >= 0) onPick(index);
  };
  const unknown = typed !== "" && !labels.includes(typed);
  return (
    <label class="bc-tool">
      <span class="bc-tool-label">{label}</span>
      <input
        type="search"
        list={`${id}-classes`}
        value={typed}
        placeholder="any"
        autocomplete="off"
        aria-invalid={unknown}
        title={unknown ? `No class is called “${typed}”` : "Type the name of a class"}
        onFocus={() => setListed(true)}
        onInput={(event) => take(event.currentTarget.value)}
        onBlur={() => unknown && setTyped(chosen)}
      />
      <datalist id={`${id}-classes`}>
        {listed && labels.map((name, index) => <option key={index} value={name} />)}
      </datalist>
    </label>
  );
}
