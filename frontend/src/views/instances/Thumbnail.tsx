import { useEffect, useRef, useState } from "preact/hooks";
import type { DataSource, InstanceId } from "../../model";

export interface ThumbnailProps {
  readonly source: DataSource;
  readonly run: string;
  readonly dataset: string;
  readonly id: InstanceId;
  readonly alt: string;
}

type Picture = { readonly address: string } | "waiting" | "missing";

/** An image that is asked for once it comes near the screen. */
export function Thumbnail({ source, run, dataset, id, alt }: ThumbnailProps) {
  const frame = useRef<HTMLSpanElement>(null);
  const [picture, setPicture] = useState<Picture>("waiting");
  useEffect(() => {
    let wanted = true;
    setPicture("waiting");
    const load = () =>
      source.image(run, dataset, id).then(
        (address) => wanted && setPicture(address === null ? "missing" : { address }),
        () => wanted && setPicture("missing"),
      );
    const observer = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        observer.disconnect();
        void load();
      },
      { rootMargin: "200px" },
    );
    if (frame.current) observer.observe(frame.current);
    return () => {
      wanted = false;
      observer.disconnect();
    };
  }, [source, run, dataset, id]);
  return (
    <span ref={frame} class="bc-thumbnail">
      {picture === "missing" ? (
        <span class="bc-note">no image</span>
      ) : picture === "waiting" ? null : (
        <img src={picture.address} alt={alt} decoding="async" onError={() => setPicture("missing")} />
      )}
    </span>
  );
}
